//! The README's tour over three clusters.

use vo_tests::testbed::{GRID, MESA, TUNDRA};
use vo_tests::{Home, take_tour, testbed};

#[test]
fn the_tour_on_three_clusters() {
    let mut home = Home::new();
    home.set_cargo();
    // The README names the default; a testbed elsewhere is as good.
    if testbed::state().as_os_str() != "/var/tmp/vo-testbed" {
        return vo_tests::skip("VO_TESTBED_STATE is not what the README says");
    }
    take_tour(&mut home, 1);
    crate::nothing_left(&home, &[&TUNDRA, &MESA, &GRID]);
}
