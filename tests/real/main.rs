//! The programs against real batch systems behind real SSH gateways: contrib/testbed.
