//! vo-master
