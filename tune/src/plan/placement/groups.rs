//! Cores split into groups, one for each queue. Pure.

use crate::host::CpuPlace;

/// The CPUs of one core.
type Core<'c, 'a> = &'c [&'a CpuPlace];

/// The node of a CPU as a key; the unknown one is one of its own.
pub(super) fn node(place: &CpuPlace) -> u64 {
    place.node.map_or(u64::MAX, u64::from)
}

/// What a group of the policy `spread` does not cross, the larger first.
const DOMAINS: [fn(&CpuPlace) -> u64; 2] = [node, |place| place.llc.into()];

/// The cores in runs whose lengths differ by one at most; with more queues than cores the threads of some are
/// split.
pub(super) fn even<'a>(cores: &[Core<'_, 'a>], queues: usize) -> Vec<Vec<&'a CpuPlace>> {
    if queues <= cores.len() {
        return split(cores, queues).map(<[_]>::concat).collect();
    }
    split_cores(cores, queues)
}

/// As [`even`] within each node, and there within each cache, as long as there is a queue for each of them;
/// numbered in turn over them.
pub(super) fn within_domains<'a>(cores: &[Core<'_, 'a>], queues: usize) -> Vec<Vec<&'a CpuPlace>> {
    within(cores, queues, &DOMAINS)
}

fn within<'a>(
    cores: &[Core<'_, 'a>],
    queues: usize,
    levels: &[fn(&CpuPlace) -> u64],
) -> Vec<Vec<&'a CpuPlace>> {
    let Some((level, below)) = levels.split_first() else { return even(cores, queues) };
    let key = |core: &Core| core.first().map(|place| level(place));
    let domains: Vec<&[Core]> = cores.chunk_by(|a, b| key(a) == key(b)).collect();
    if domains.len() > queues {
        return even(cores, queues);
    }
    let sizes: Vec<usize> = domains.iter().map(|domain| domain.iter().map(|core| core.len()).sum()).collect();
    let parts = apportion(&sizes, queues);
    interleave(domains.iter().zip(parts).map(|(domain, part)| within(domain, part, below)).collect())
}

/// `queues` for domains of these numbers of CPUs, of which there are at most as many, and at least as many
/// CPUs: one for each, then the next always for the one with the most CPUs for a queue.
fn apportion(sizes: &[usize], queues: usize) -> Vec<usize> {
    let mut parts = vec![1; sizes.len()];
    for _ in sizes.len()..queues {
        let more = |a: usize, b: usize| (sizes[a] * parts[b]).cmp(&(sizes[b] * parts[a])).then(b.cmp(&a));
        if let Some(next) = (0..sizes.len()).max_by(|&a, &b| more(a, b)) {
            parts[next] += 1;
        }
    }
    parts
}

/// The first of each list, then the second of each, and so on.
pub(super) fn interleave<T>(lists: Vec<Vec<T>>) -> Vec<T> {
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(lists.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return all;
        }
    }
}

/// `items` in `parts` runs whose lengths differ by one at most.
fn split<T>(items: &[T], parts: usize) -> impl Iterator<Item = &[T]> {
    (0..parts).map(move |part| &items[part * items.len() / parts..(part + 1) * items.len() / parts])
}

/// More queues than cores and fewer than threads: a queue more for one core after the other, as far as it has
/// threads.
fn split_cores<'a>(cores: &[Core<'_, 'a>], queues: usize) -> Vec<Vec<&'a CpuPlace>> {
    let mut parts = vec![1; cores.len()];
    let mut left = queues - cores.len();
    while left > 0 {
        let before = left;
        for (parts, core) in parts.iter_mut().zip(cores) {
            if left > 0 && *parts < core.len() {
                *parts += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    let runs = cores.iter().zip(parts).flat_map(|(core, parts)| split(core, parts));
    runs.map(<[_]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_apportioned_by_cpus_and_never_more_than_there_are() {
        assert_eq!(apportion(&[24, 24], 5), [3, 2]);
        assert_eq!(apportion(&[8, 24], 4), [1, 3]);
        assert_eq!(apportion(&[1, 1, 6], 8), [1, 1, 6]);
        assert_eq!(apportion(&[2, 2], 2), [1, 1]);
    }

    #[test]
    fn lists_are_taken_from_in_turn() {
        assert_eq!(interleave(vec![vec![1, 2, 3], vec![], vec![4]]), [1, 4, 2, 3]);
        assert!(interleave::<u8>(Vec::new()).is_empty());
    }
}
