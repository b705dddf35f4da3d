//! Futexes (futex(2)).
