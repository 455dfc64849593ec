//! The interface of the default route, for `interface = "auto"`: that of IPv4 in `/proc/net/route`, on a host
//! without one that of IPv6 in `/proc/net/ipv6_route`.

use super::{HostError, InterfaceName};
use crate::kernel_files::KernelFiles;

const PATH: &str = "/proc/net/route";
const PATH_V6: &str = "/proc/net/ipv6_route";

/// `RTF_UP` and `RTF_REJECT` of `include/uapi/linux/route.h`.
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// The interface of the default route with the lowest metric, in the network namespace of this process.
///
/// # Errors
/// If a file cannot be read, or there is no default route.
pub(super) fn read(files: &KernelFiles) -> Result<InterfaceName, HostError> {
    let lowest_of = |path, default_route: fn(&str) -> Option<Route>| -> Result<_, HostError> {
        Ok(lowest(&files.read_optional(path)?.unwrap_or_default(), default_route))
    };
    let found = match lowest_of(PATH, default_route)? {
        None => lowest_of(PATH_V6, default_route_v6)?,
        found => found,
    };
    found.ok_or(HostError::NoDefaultRoute)
}

/// Metric and interface.
type Route = (u32, InterfaceName);

/// The interface of the default route with the lowest metric; the first of several, as in the kernel's own
/// choice.
fn lowest(text: &str, default_route: fn(&str) -> Option<Route>) -> Option<InterfaceName> {
    let routes = text.lines().filter_map(default_route);
    routes.min_by_key(|(metric, _)| *metric).map(|(_, interface)| interface)
}

/// A line `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, if it is a default route (destination
/// and mask 0) that is up and no reject route.
fn default_route(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [interface, destination, _, flags, _, _, metric, mask, ..] = fields[..] else { return None };
    let is_default = hex(destination)? == 0 && hex(mask)? == 0 && is_usable(hex(flags)?);
    if !is_default {
        return None;
    }
    Some((metric.parse().ok()?, interface.parse().ok()?))
}

/// A line `destination length source length next-hop metric refcnt use flags device`, all in hex
/// (`rt6_info_route()`, `ipv6_route_native_seq_show()`), if it is a default route. The kernel has a reject
/// route of `lo` by itself.
fn default_route_v6(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [destination, length, _, source_length, _, metric, _, _, flags, interface] = fields[..] else {
        return None;
    };
    let to_all =
        destination.bytes().all(|digit| digit == b'0') && hex(length)? == 0 && hex(source_length)? == 0;
    if !to_all || !is_usable(hex(flags)?) || interface == "lo" {
        return None;
    }
    Some((hex(metric)?, interface.parse().ok()?))
}

fn is_usable(flags: u32) -> bool {
    flags & (UP | REJECT) == UP
}

fn hex(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT   \n";

    fn route(lines: &str) -> Option<String> {
        lowest(&format!("{HEAD}{lines}"), default_route).map(|name| name.to_string())
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

    const NOWHERE: &str = "00000000000000000000000000000000";

    fn route_v6(length: &str, metric: &str, flags: &str, interface: &str) -> String {
        let next = "fe800000000000000000000000000001";
        format!("{NOWHERE} {length} {NOWHERE} 00 {next} {metric} 00000002 00000000 {flags} {interface:>8}\n")
    }

    #[test]
    fn without_an_ipv4_default_route_that_of_ipv6_is_taken() {
        let reject = route_v6("00", "ffffffff", "00200200", "lo");
        let loopback = route_v6("00", "00000001", "00000001", "lo");
        let wifi = route_v6("00", "00000400", "00450003", "wlan0");
        let wire = route_v6("00", "00000064", "00000003", "eth0");
        let half = route_v6("01", "00000001", "00000003", "tun0");
        let text = format!("{reject}{loopback}{half}{wifi}{wire}");
        assert_eq!(lowest(&text, default_route_v6).unwrap().as_str(), "eth0");
        assert_eq!(lowest(&format!("{reject}{loopback}{half}"), default_route_v6), None);

        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/net")).unwrap();
        std::fs::write(dir.path().join("proc/net/route"), HEAD).unwrap();
        let files = KernelFiles::open(dir.path()).unwrap();
        assert!(matches!(read(&files), Err(HostError::NoDefaultRoute)));
        std::fs::write(dir.path().join("proc/net/ipv6_route"), text).unwrap();
        assert_eq!(read(&files).unwrap().as_str(), "eth0");
        let four = "eth4\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n";
        std::fs::write(dir.path().join("proc/net/route"), format!("{HEAD}{four}")).unwrap();
        assert_eq!(read(&files).unwrap().as_str(), "eth4");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "([a-z0-9]{0,9}[\t\n ]){0,40}") {
            let _ = lowest(&text, default_route);
            let _ = lowest(&text, default_route_v6);
        }
    }
}
