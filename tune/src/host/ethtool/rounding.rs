//! Numbers of descriptors that a driver does not have exactly. Pure.
//!
//! | driver | makes of it (`set_ringparam` of each) |
//! |---|---|
//! | mlx4, mlx5, mana, nfp, sfc | the next power of two |
//! | igb, igc, ixgbe, atlantic, hns3 | the next multiple of 8 |
//! | i40e, iavf, ice, idpf, enic, vmxnet3 | the next multiple of 32 |
//!
//! ena takes the power of two *below*, which is less than what was asked for and is not accepted.

use super::knob::ring_counts;

/// All of which drivers round to a multiple; what is a multiple of 32 is one of the others, too.
const MULTIPLES: [u32; 4] = [8, 16, 32, 64];

/// True if a driver that was asked for `asked` descriptors may have made `found` of them.
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
