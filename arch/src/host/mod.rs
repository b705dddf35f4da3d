//! Thin safe wrappers of host calls, one file a subject.
