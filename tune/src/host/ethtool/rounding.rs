//! Numbers of descriptors that a driver does not have exactly. Pure.
//!
//! ena takes the power of two *below*, which is less than what was asked for and is not accepted.

use super::knob::ring_counts;

/// What drivers, as sysfs names them, make of a number.
enum Step {
    NextPowerOfTwo,
    NextMultipleOf(u32),
}

/// As `set_ringparam` of each driver has it.
const STEPS: [(Step, &[&str]); 4] = [
    (Step::NextPowerOfTwo, &["mlx4_core", "mlx5_core", "mana", "nfp", "sfc"]),
    (Step::NextMultipleOf(8), &["igb", "igc", "ixgbe", "atlantic", "hns3"]),
    (Step::NextMultipleOf(32), &["i40e", "iavf", "ice", "idpf", "enic", "vmxnet3"]),
    (Step::NextMultipleOf(1), &["bnxt_en", "bnx2x", "qede"]),
];

/// What this driver makes of a number of descriptors; `None` where it is not known.
pub(crate) fn rounded(driver: &str, asked: u32) -> Option<u32> {
    let (step, _) = STEPS.iter().find(|(_, drivers)| drivers.contains(&driver))?;
    match step {
        Step::NextPowerOfTwo => asked.checked_next_power_of_two(),
        Step::NextMultipleOf(multiple) => asked.checked_next_multiple_of(*multiple),
    }
}

/// All of which drivers round to a multiple.
const MULTIPLES: [u32; 4] = [8, 16, 32, 64];

/// True if a driver of which nothing is known may have made `found` descriptors of `asked`.
pub(crate) fn rounds_to(asked: u32, found: u32) -> bool {
    found == asked
        || asked.checked_next_power_of_two() == Some(found)
        || MULTIPLES.iter().any(|multiple| asked.checked_next_multiple_of(*multiple) == Some(found))
}

/// As [`rounds_to`], of the text of the knob `rings`: the same kinds, each rounded or not.
pub(crate) fn rings_round_to(asked: &str, found: &str) -> bool {
    let (Ok(asked), Ok(found)) = (ring_counts(asked), ring_counts(found)) else { return false };
    let pairs = || asked.iter().zip(&found);
    asked.len() == found.len() && pairs().all(|((a, asked), (b, found))| a == b && rounds_to(*asked, *found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_round_up_to_a_power_or_a_multiple_and_nothing_else_is_rounding() {
        for (asked, found, rounding) in [
            (1000, 1000, true),
            (1000, 1024, true),
            (1001, 1008, true),
            (1001, 1024, true),
            (600, 608, true),
            (600, 640, true),
            (1000, 512, false),
            (1000, 2048, false),
            (1024, 2048, false),
            (512, 1024, false),
            (u32::MAX, 8, false),
        ] {
            assert_eq!(rounds_to(asked, found), rounding, "{asked} {found}");
        }
    }

    #[test]
    fn a_driver_rounds_as_its_source_has_it() {
        for (driver, expected) in [
            ("mlx5_core", Some(1024)),
            ("igb", Some(1008)),
            ("ice", Some(1024)),
            ("bnxt_en", Some(1001)),
            ("virtio_net", None),
        ] {
            assert_eq!(rounded(driver, 1001), expected, "{driver}");
        }
        assert_eq!(rounded("mlx5_core", u32::MAX), None);
    }

    #[test]
    fn each_kind_of_ring_is_rounded_for_itself() {
        for (asked, found, rounding) in [
            ("rx 1000 tx 512", "rx 1024 tx 512", true),
            ("rx 1000 tx 500", "rx 1024 tx 512", true),
            ("rx 1000 tx 512", "rx 1024 tx 1024", false),
            ("rx 1000 tx 512", "rx 1024", false),
            ("rx 1000", "tx 1024", false),
            ("rx 1000", "", false),
        ] {
            assert_eq!(rings_round_to(asked, found), rounding, "{asked}: {found}");
        }
    }
}
