//! The leader's brain: leases, planning passes and wake-ups
