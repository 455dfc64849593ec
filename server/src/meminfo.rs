//! Fields of the text of `/proc/meminfo`. Pure.

/// A field that has no unit, by its name with the colon.
pub(crate) fn number(meminfo: &str, name: &str) -> Option<u64> {
    field(meminfo, name)?.parse().ok()
}

/// A field in bytes, by its name with the colon.
pub(crate) fn bytes(meminfo: &str, name: &str) -> Option<u64> {
    let kibibytes = field(meminfo, name)?.strip_suffix("kB")?.trim();
    kibibytes.parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes that the kernel still promises with `vm.overcommit_memory` of 2.
pub(crate) fn uncommitted(meminfo: &str) -> Option<u64> {
    Some(bytes(meminfo, "CommitLimit:")?.saturating_sub(bytes(meminfo, "Committed_AS:")?))
}

fn field<'a>(meminfo: &'a str, name: &str) -> Option<&'a str> {
    meminfo.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_with_its_unit() {
        let text = "MemTotal: 9 kB\nMemAvailable:    2048 kB\nHugePages_Total:      10\n";
        assert_eq!(bytes(text, "MemAvailable:"), Some(2 << 20));
        assert_eq!(bytes(text, "MemFree:"), None);
        assert_eq!(bytes("MemAvailable: many kB\n", "MemAvailable:"), None);
        let committed = |limit| uncommitted(&format!("CommitLimit: {limit} kB\nCommitted_AS: 5 kB\n"));
        assert_eq!((committed(7), committed(4), uncommitted(text)), (Some(2048), Some(0), None));
        assert_eq!((number(text, "HugePages_Total:"), bytes(text, "HugePages_Total:")), (Some(10), None));
    }
}
