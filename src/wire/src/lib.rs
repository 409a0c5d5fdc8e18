//! vo-wire
