use proptest::prelude::*;

use super::*;

fn list(text: &str) -> CpuSet {
    CpuSet::parse_list(text).unwrap()
}

#[test]
fn lists_as_the_kernel_writes_them() {
    assert_eq!(list("0-3,8").iter().collect::<Vec<_>>(), [0, 1, 2, 3, 8]);
    assert_eq!(list("0-3,8\n").to_string(), "0-3,8");
    assert_eq!(list("").to_string(), "");
    assert_eq!(list("0-31:2/8").to_string(), "0-1,8-9,16-17,24-25");
    assert_eq!(list("01"), list("1"), "in a list 01 is CPU 1, not a mask");
}

#[test]
fn an_ordered_list_keeps_its_order_and_drops_repeats() {
    assert_eq!(CpuSet::parse_ordered("3,0-1,3").unwrap(), [3, 0, 1]);
    assert!(matches!(CpuSet::parse_ordered(""), Err(CpuSetError::Empty(_))));
}

#[test]
fn impossible_lists_are_refused_with_the_reason() {
    for (text, message) in [
        ("5-2", "range 5-2 in \"5-2\" runs backwards; write 2-5"),
        ("0-99999999", "CPU 99999999 in \"0-99999999\" is beyond 8191"),
        ("1,,2", "names no CPU"),
        ("0x3", "\"0x3\" in \"0x3\" is not a CPU number"),
        ("-1", "names no CPU"),
        ("0-7:0/4", "stride \":0/4\""),
        ("0-7:5/4", "stride \":5/4\""),
        ("0-7:2", "is not a CPU number"),
    ] {
        let error = CpuSet::parse_list(text).unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
}

/// What the kernel takes (`bitmap_parse()` in `lib/bitmap-str.c`), measured on 6.18.
#[test]
fn masks_as_the_kernel_reads_them() {
    for text in ["3", "03", "00000003", " 3 ", ",3", "3,", "3\n", "0,3", "00000000,00000003"] {
        assert_eq!(CpuSet::parse_mask(text).unwrap(), list("0-1"), "{text:?}");
    }
    assert_eq!(CpuSet::parse_mask("01").unwrap(), list("0"));
    assert_eq!(CpuSet::parse_mask("ff,00000000").unwrap(), list("32-39"));
    assert_eq!(CpuSet::parse_mask("0").unwrap(), CpuSet::new());
    for text in ["", "0x3", "000000001", "g", "1,,2", "1-0", "1 1"] {
        assert!(CpuSet::parse_mask(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_mask_has_no_leading_zero_group() {
    assert_eq!(list("0").to_mask(), "1");
    assert_eq!(list("32").to_mask(), "1,00000000");
    assert_eq!(list("0,1151").to_mask().split(',').count(), 36);
    assert_eq!(CpuSet::new().to_mask(), "0");
}

proptest! {
    #[test]
    fn list_and_mask_are_inverse_of_parsing(cpus in prop::collection::btree_set(0..MAX_CPUS, 0..300)) {
        let set: CpuSet = cpus.iter().copied().collect();
        prop_assert_eq!(set.iter().collect::<Vec<_>>(), cpus.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(set.len(), cpus.len());
        prop_assert_eq!(&CpuSet::parse_list(&set.to_string()).unwrap(), &set);
        prop_assert_eq!(&CpuSet::parse_mask(&set.to_mask()).unwrap(), &set);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "[0-9a-fx,:/ -]{0,40}") {
        let _ = CpuSet::parse_list(&text);
        let _ = CpuSet::parse_mask(&text);
    }

    #[test]
    fn set_operations_agree_with_a_set(
        a in prop::collection::btree_set(0..2000u32, 0..60),
        b in prop::collection::btree_set(0..2000u32, 0..60),
    ) {
        let (x, y): (CpuSet, CpuSet) = (a.iter().copied().collect(), b.iter().copied().collect());
        prop_assert_eq!(x.difference(&y), a.difference(&b).copied().collect::<CpuSet>());
        prop_assert_eq!(x.intersection(&y), a.intersection(&b).copied().collect::<CpuSet>());
        prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
    }
}
