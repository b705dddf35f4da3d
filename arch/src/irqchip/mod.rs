//! io_uring as the interrupt controller: a completion is an interrupt.
