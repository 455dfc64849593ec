//! What `server` is measured against.

use clap::ValueEnum;

use super::contender::{Contender, Serves};
use crate::cli;
use crate::peer::proxy;

/// A peer, with the options that make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// `peers epoll --trigger edge`
    EpollEdge,
    /// `peers epoll --trigger level`
    EpollLevel,
    /// `peers monoio`
    Monoio,
    /// `peers compio`
    Compio,
    /// `peers compio --multishot`
    CompioMultishot,
    /// `peers tokio`
    Tokio,
    /// `peers tokio --multi-thread`
    TokioMultiThread,
    /// `peers glommio`
    Glommio,
    /// `peers blocking`: one connection at a time
    Blocking,
    /// `peers blocking --mode accept-fin --model reuseport`: connect-reset only
    BlockingReuseport,
    /// `peers blocking --mode accept-fin --model shared`: connect-reset only
    BlockingShared,
    /// `peers nginx`: connect-reset only
    Nginx,
    /// `peers haproxy`: connect-reset only
    Haproxy,
    /// `peers bare --ring`: no peer but what io_uring leaves to be gained, with messages up to 4 KiB; measured
    /// only if named
    BareRing,
}

impl Peer {
    /// Those that this executable contains and this machine has, and that somebody would use.
    pub(crate) fn available() -> Vec<Self> {
        let is_available = |peer: &Self| match peer {
            Self::Nginx => proxy::has_nginx(),
            Self::Haproxy => proxy::has_haproxy(),
            Self::BareRing => false,
            _ => cli::peers().any(|name| peer.command().split(' ').next() == Some(&*name)),
        };
        Self::value_variants().iter().copied().filter(is_available).collect()
    }

    /// How it is started, and what it is measured in.
    pub(crate) fn contender(self) -> Result<Contender, String> {
        let name = self.to_possible_value().ok_or("no peer is hidden")?;
        let serves = match self {
            Self::Blocking => Serves::OneAtATime,
            Self::BareRing => Serves::SmallMessages,
            Self::BlockingReuseport | Self::BlockingShared | Self::Nginx | Self::Haproxy => {
                Serves::ConnectReset
            }
            _ => Serves::All,
        };
        let contender = Contender::parse(&format!("{}={}", name.get_name(), self.command()))?;
        Ok(Contender { serves, ..contender })
    }

    fn command(self) -> &'static str {
        match self {
            Self::EpollEdge => "epoll --trigger edge",
            Self::EpollLevel => "epoll --trigger level",
            Self::Monoio => "monoio",
            Self::Compio => "compio",
            Self::CompioMultishot => "compio --multishot",
            Self::Tokio => "tokio",
            Self::TokioMultiThread => "tokio --multi-thread",
            Self::Glommio => "glommio",
            Self::Blocking => "blocking",
            Self::BlockingReuseport => "blocking --mode accept-fin --model reuseport",
            Self::BlockingShared => "blocking --mode accept-fin --model shared",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::BareRing => "bare --ring",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::DEFAULT;
    use super::*;

    #[test]
    fn epoll_is_first_and_the_runtimes_are_there_with_their_feature() {
        let available = Peer::available();
        assert_eq!(available[..2], [Peer::EpollEdge, Peer::EpollLevel]);
        for runtime in
            [Peer::Monoio, Peer::CompioMultishot, Peer::Tokio, Peer::TokioMultiThread, Peer::Glommio]
        {
            assert_eq!(available.contains(&runtime), cfg!(feature = "all-peers"), "{runtime:?}");
        }
        assert!(!available.contains(&Peer::BareRing));
        let bare = Peer::BareRing.contender().unwrap();
        let takes_part = |name: &&str| bare.takes_part(name.parse().unwrap());
        let of_default: Vec<_> = DEFAULT.into_iter().filter(takes_part).collect();
        assert_eq!(of_default.len(), 9, "{of_default:?}");
        for peer in available.into_iter().chain([Peer::BareRing]) {
            assert!(peer.contender().is_ok(), "{peer:?}");
        }
    }
}
