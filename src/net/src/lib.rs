//! vo-net
