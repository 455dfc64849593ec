//! What is known of drivers, as sysfs names them. Pure.

/// The most queues over which RSS spreads, where it is less than the channels that a driver takes
/// (perftune.py, `__max_rx_queue_count`). More would receive nothing.
pub(super) const RSS_LIMITS: [(&str, u32); 4] = [("ixgbe", 16), ("ixgbevf", 4), ("i40e", 64), ("iavf", 16)];

/// As ixgbe has it of an X550 or later (`IXGBE_MAX_RSS_INDICES_X550`), which has a table of 512 entries,
/// where those before have 128 (`ixgbe_rss_indir_tbl_entries()`).
pub(super) const RSS_LIMIT_X550: u32 = 63;
pub(super) const RSS_TABLE_X550: usize = 512;

/// Drivers without a switch to adapt the delay, and the numbers that stand for it (`ixgbe_set_coalesce()`,
/// `igb_set_coalesce()`, `e1000_set_coalesce()`): no microseconds.
pub(super) const ADAPTIVE_USECS: [(&str, &[u32]); 6] = [
    ("e1000e", &[1, 3, 4]),
    ("igb", &[1, 3]),
    ("igbvf", &[1, 3]),
    ("igc", &[1, 3]),
    ("ixgbe", &[1]),
    ("ixgbevf", &[1]),
];

/// The drivers, as sysfs names them, with `ndo_rx_flow_steer` in Linux 6.12: accelerated RFS.
pub(super) const ARFS: [&str; 8] =
    ["bnxt_en", "enic", "hns3", "ice", "mlx4_core", "mlx5_core", "qede", "sfc"];

/// Drivers in which the switch does harm, and which.
pub(super) const NTUPLE_HURTS: [(&str, &str); 2] = [
    (
        "ixgbe",
        "on ixgbe it switches ATR off and resets the port (ixgbe_set_features), and it has no accelerated \
         RFS",
    ),
    ("i40e", "on i40e it replaces ATR and resets the port (i40e_set_ntuple), and it has no accelerated RFS"),
];
