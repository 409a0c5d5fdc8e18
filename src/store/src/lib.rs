//! vo-store
