//! vo-core
