//! What a simulated kernel has done to its worker: to know that a property was put to the test.

use std::ops::AddAssign;

/// What a kernel has done, counted by a macro so that sums know every field.
macro_rules! seen {
    ($($field:ident),*) => {
        /// What the simulated kernel has done to its worker.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub(super) struct Seen {
            $(pub(super) $field: u64,)*
        }

        impl Seen {
            /// True if each has happened.
            pub(super) fn all(&self) -> bool {
                [$(self.$field),*].iter().all(|&count| count > 0)
            }
        }

        impl AddAssign for Seen {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

seen!(
    overflows,
    cut_short,
    no_buffers,
    receives_dropped,
    splices,
    fruitless_splices,
    left_over,
    partial_submissions,
    short_sends,
    full_sockets,
    waiting_sends,
    notifications,
    zero_copies_refused,
    cancels_hit,
    cancels_missed,
    cancels_escaped,
    multishot_accepts,
    accept_errors,
    handed_over
);
