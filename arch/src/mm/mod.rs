//! Guest memory and guest address spaces.
