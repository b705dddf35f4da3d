//! Running guest code in stub processes and receiving its traps.
