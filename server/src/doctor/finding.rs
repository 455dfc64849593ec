//! What `server doctor` says of one thing: a mark, a sentence, the next step. Pure.

use serde::Serialize;

/// How much a finding matters. The order is that of gravity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mark {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing has to be done.
    Note,
    /// The server runs, but not as it could or as it was asked to.
    Warning,
    /// The server does not start.
    Problem,
}

/// What a finding is about. The order is that of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Group {
    /// Whether io_uring may be used, and as often as there are cores.
    IoUring,
    /// What the kernel's io_uring has.
    Features,
    /// Limits of the process.
    Limits,
    /// Sysctls of TCP.
    Network,
    /// The addresses of `--listen` and `--metrics`.
    Addresses,
    /// The CPUs of `--cores`.
    Cores,
    /// The network interfaces under the addresses.
    Nic,
}

impl Group {
    /// The heading.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Features => "features of the kernel",
            Self::Limits => "limits",
            Self::Network => "network",
            Self::Addresses => "addresses",
            Self::Cores => "cores",
            Self::Nic => "network interfaces",
        }
    }
}

/// What becomes of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FeatureState {
    /// The kernel has it and the server uses it.
    Used,
    /// The kernel has it; the server, as configured, does not use it.
    Available,
    /// The kernel does not have it.
    Absent,
    /// The kernel has it; `--without` names it.
    SwitchedOff,
}

/// A feature of the kernel, for programs that read the JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FeatureFinding {
    /// What becomes of it.
    pub(super) state: FeatureState,
    /// The Linux release that brought it.
    pub(super) since: &'static str,
    /// Why it matters.
    pub(super) why: &'static str,
    /// What the server does without it.
    pub(super) instead: &'static str,
}

/// One line of the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Where it belongs.
    pub(super) group: Group,
    /// The check's stable name.
    pub(super) check: &'static str,
    /// How much it matters.
    pub(super) mark: Mark,
    /// What was looked at: an address, an interface, a sysctl.
    pub(super) subject: String,
    /// What was found, and what it means.
    pub(super) says: String,
    /// What to do about it: a command or a setting; null if there is nothing to be done.
    pub(super) next: Option<String>,
    /// More of it, if it is a feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) feature: Option<FeatureFinding>,
}

impl Finding {
    /// A finding without a next step.
    pub(super) fn new(
        group: Group,
        check: &'static str,
        mark: Mark,
        subject: impl Into<String>,
        says: impl Into<String>,
    ) -> Self {
        let (subject, says) = (subject.into(), says.into());
        Self { group, check, mark, subject, says, next: None, feature: None }
    }

    /// The same with a next step.
    pub(super) fn next(self, step: impl Into<String>) -> Self {
        Self { next: Some(step.into()), ..self }
    }
}

/// How grave the gravest is.
pub(super) fn worst(findings: &[Finding]) -> Mark {
    findings.iter().map(|finding| finding.mark).max().unwrap_or(Mark::Ok)
}

/// How many have this mark.
pub(super) fn count(findings: &[Finding], mark: Mark) -> usize {
    findings.iter().filter(|finding| finding.mark == mark).count()
}
