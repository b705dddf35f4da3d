//! Terminals: line discipline, job control.
