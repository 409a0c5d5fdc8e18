//! vo-sim
