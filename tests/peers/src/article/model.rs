//! The servers that are compared. Pure.

use serde::Serialize;

use super::workload::Workload;
use crate::bench::contender::Contender;

/// A server in one of the models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Model {
    /// The program.
    pub(crate) server: &'static str,
    /// Who has a listener.
    pub(crate) listener: &'static str,
    options: &'static str,
}

/// Of each server the shared listener first: the others are compared with it.
pub(crate) const MODELS: [Model; 6] = [
    model("blocking", "shared", "--model shared"),
    model("blocking", "per core", "--model reuseport"),
    model("blocking", "per core, by CPU", "--model cpu"),
    model("server", "shared", "--json --accept shared"),
    model("server", "per core", "--json --steer hash"),
    model("server", "per core, by CPU", "--json --steer cpu"),
];

const fn model(server: &'static str, listener: &'static str, options: &'static str) -> Model {
    Model { server, listener, options }
}

impl Model {
    /// Its name in the tables.
    pub(crate) fn name(self) -> String {
        format!("{}: {}", self.server, self.listener)
    }

    /// The place of the one with which it is compared.
    pub(crate) fn shared(self) -> Option<usize> {
        MODELS.iter().position(|other| other.server == self.server)
    }

    /// How it is started.
    pub(crate) fn contender(self, workload: Workload) -> Result<Contender, String> {
        let mode = match (workload, self.server) {
            (Workload::Echo { .. }, _) => "echo",
            (Workload::Accept { .. }, "blocking") => "accept-fin",
            (Workload::Accept { .. }, _) => "accept-close",
        };
        let contender = format!("{}={} {} --mode {mode}", self.name(), self.server, self.options);
        Contender::parse(&contender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_compared_with_the_shared_listener_of_its_server() {
        for model in MODELS {
            let shared = MODELS[model.shared().unwrap()];
            assert_eq!((shared.server, shared.listener), (model.server, "shared"));
            assert!(model.contender(Workload::Echo { clients: 1 }).is_ok(), "{model:?}");
        }
    }
}
