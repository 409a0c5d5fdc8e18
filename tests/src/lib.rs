//! vo-tests
