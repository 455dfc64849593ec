//! Where the files of this process's cgroup are. Pure.

/// The files of a controller, nearest cgroup first, then those of the cgroups above it, whose limits hold for
/// it too. `cgroup` is the text of `/proc/self/cgroup`, with lines `ID:CONTROLLERS:PATH`; the file is called
/// by the first of the names in the hierarchy of version 2, by the second in the controller's own one of
/// version 1. In a container, where the paths are the host's, only the topmost may exist.
pub(crate) fn files(cgroup: &str, controller: &str, names: [&str; 2]) -> Vec<String> {
    let of_row = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let (top, name) = if controllers.is_empty() {
            ("/sys/fs/cgroup".to_owned(), names[0])
        } else if controllers.split(',').any(|other| other == controller) {
            (format!("/sys/fs/cgroup/{controller}"), names[1])
        } else {
            return None;
        };
        let path = path.trim_end_matches('/');
        let upwards = std::iter::successors(Some(path), |path| Some(path.rsplit_once('/')?.0));
        Some(upwards.map(|path| format!("{top}{path}/{name}")).collect::<Vec<String>>())
    };
    cgroup.lines().filter_map(of_row).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_looked_for_in_both_hierarchies_and_upwards() {
        let files = |text, controller| files(text, controller, ["new", "old"]);
        let text = "9:name=systemd:/\n3:cpuset:/box\n2:cpu,memory:/\n0::/user.slice/a:b\n";
        let new = ["/user.slice/a:b", "/user.slice", ""].map(|path| format!("/sys/fs/cgroup{path}/new"));
        let old = ["/sys/fs/cgroup/cpuset/box/old", "/sys/fs/cgroup/cpuset/old"].map(str::to_owned);
        assert_eq!(files(text, "cpuset"), [&old[..], &new[..]].concat());
        assert_eq!(files(text, "memory"), [&["/sys/fs/cgroup/memory/old".to_owned()][..], &new].concat());
        assert_eq!(files("0::/", "memory"), ["/sys/fs/cgroup/new"]);
        assert!(files("nonsense\n1:x\n", "memory").is_empty());
    }
}
