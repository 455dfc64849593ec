//! `/proc/net/route`: the interface of the IPv4 default route, for `interface = "auto"`.

use super::{HostError, InterfaceName};
use crate::kernel_files::KernelFiles;

const PATH: &str = "/proc/net/route";

/// `RTF_UP` and `RTF_REJECT` of `include/uapi/linux/route.h`.
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// The interface of the default route with the lowest metric, in the network namespace of this process.
///
/// # Errors
/// If the file cannot be read, or there is no default route.
pub(super) fn read(files: &KernelFiles) -> Result<InterfaceName, HostError> {
    let text = files.read_optional(PATH)?.unwrap_or_default();
    parse(&text).ok_or(HostError::NoDefaultRoute)
}

/// The interface of the default route (destination and mask 0, up, not a reject route) with the lowest metric;
/// the first of several, as in the kernel's own choice.
fn parse(text: &str) -> Option<InterfaceName> {
    let mut best: Option<(u32, InterfaceName)> = None;
    for line in text.lines().skip(1) {
        let Some((metric, interface)) = default_route(line) else { continue };
        if best.as_ref().is_none_or(|(lowest, _)| metric < *lowest) {
            best = Some((metric, interface));
        }
    }
    best.map(|(_, interface)| interface)
}

/// Metric and interface of a line `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, if it is a default
/// route.
fn default_route(line: &str) -> Option<(u32, InterfaceName)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [interface, destination, _, flags, _, _, metric, mask, ..] = fields[..] else { return None };
    let hex = |digits| u32::from_str_radix(digits, 16).ok();
    let is_default = hex(destination)? == 0 && hex(mask)? == 0 && hex(flags)? & (UP | REJECT) == UP;
    if !is_default {
        return None;
    }
    Some((metric.parse().ok()?, interface.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT   \n";

    fn route(lines: &str) -> Option<String> {
        parse(&format!("{HEAD}{lines}")).map(|name| name.to_string())
    }

    #[test]
    fn the_lowest_metric_wins() {
        let wifi = "wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n";
        let wire = "eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
        let net = "eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(route(&format!("{wifi}{net}{wire}")).as_deref(), Some("eth0"));
    }

    #[test]
    fn half_of_the_internet_is_no_default_route() {
        assert_eq!(route("tun0\t00000000\t00000000\t0003\t0\t0\t0\t00000080\t0\t0\t0\n"), None);
    }

    #[test]
    fn reject_routes_and_routes_that_are_down_do_not_count() {
        assert_eq!(route("*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\n"), None);
        assert_eq!(route("eth0\t00000000\t00000000\t0002\t0\t0\t0\t00000000\t0\t0\t0\n"), None);
        assert_eq!(route(""), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "([a-z0-9]{0,9}[\t\n ]){0,40}") {
            let _ = parse(&text);
        }
    }
}
