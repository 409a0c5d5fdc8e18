//! The examples of contrib/examples, as their users run them.

use vo_tests::{Home, examples, run_example};

macro_rules! runs {
    ($($test:ident: $name:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            let home = Home::new();
            home.vo(["-s", "t", "-n", "1:4", "--keep", "-c", "true"]).ok();
            run_example(&home, $name);
            home.end("t");
            home.assert_nothing_left();
        })*

        #[test]
        fn every_example_has_a_test() {
            assert_eq!(examples(), [$($name),*]);
        }
    };
}

runs! {
    the_example_container_runs: "container",
    the_example_diamond_scripts_runs: "diamond-scripts",
    the_example_made_dag_runs: "made-dag",
    the_example_monte_carlo_runs: "monte-carlo",
    the_example_more_memory_runs: "more-memory",
    the_example_packed_inputs_runs: "packed-inputs",
    the_example_parameter_sweep_runs: "parameter-sweep",
    the_example_planned_diamond_runs: "planned-diamond",
    the_example_queue_from_runs: "queue-from",
    the_example_quick_start_runs: "quick-start",
    the_example_rescue_runs: "rescue",
    the_example_retries_runs: "retries",
    the_example_run_directories_runs: "run-directories",
    the_example_search_pipeline_runs: "search-pipeline",
    the_example_splices_runs: "splices",
    the_example_word_count_runs: "word-count",
}
