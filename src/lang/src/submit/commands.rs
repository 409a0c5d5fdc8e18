//! The commands of submit descriptions, and what becomes of each here.

/// What becomes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Its value is in the job ad.
    Acted,
    /// Means nothing here, and nothing is lost.
    Quiet,
    /// Not acted on; jobs give the same results all the same. Quiet when it has one of these values.
    NoEffect(&'static [&'static str]),
    /// Not acted on, and ignoring it would change results: refused unless it has one of these values.
    Refused(&'static [&'static str]),
}
use Treatment::{Acted, NoEffect, Quiet, Refused};

const FALSE: &[&str] = &["false"];
const TRUE: &[&str] = &["true"];
const ZERO: &[&str] = &["0"];
const ONE: &[&str] = &["1"];

pub(super) const EXECUTABLE: &[&str] = &["executable", "cmd"];
pub(super) const ARGUMENTS: &[&str] = &["arguments", "args", "arguments2"];
pub(super) const ENVIRONMENT: &[&str] = &["environment", "env", "environment2"];
pub(super) const GETENV: &[&str] = &["getenv", "get_env"];
pub(super) const INITIALDIR: &[&str] = &["initialdir", "initial_dir", "job_iwd", "iwd"];
pub(super) const INPUT: &[&str] = &["input", "stdin"];
pub(super) const OUTPUT: &[&str] = &["output", "stdout"];
pub(super) const ERROR: &[&str] = &["error", "stderr"];
pub(super) const LOG: &[&str] = &["log", "userlog"];
pub(super) const UNIVERSE: &[&str] = &["universe", "jobuniverse"];
pub(super) const REQUEST_CPUS: &[&str] = &["request_cpus", "requestcpus"];
pub(super) const REQUEST_MEMORY: &[&str] = &["request_memory", "requestmemory"];
pub(super) const REQUEST_DISK: &[&str] = &["request_disk", "requestdisk"];
pub(super) const SHOULD_TRANSFER: &[&str] = &["should_transfer_files", "shouldtransferfiles"];
pub(super) const WHEN_TO_TRANSFER: &[&str] = &["when_to_transfer_output", "whentotransferoutput"];
pub(super) const TRANSFER_EXECUTABLE: &[&str] = &["transfer_executable", "transferexecutable"];
pub(super) const TRANSFER_INPUT: &[&str] = &["transfer_input_files", "transferinputfiles"];
pub(super) const TRANSFER_OUTPUT: &[&str] = &["transfer_output_files", "transferoutputfiles"];
pub(super) const BATCH_NAME: &[&str] = &["batch_name", "jobbatchname"];

/// Names of one command, the one to prefer first, with its treatment.
const COMMANDS: &[(&[&str], Treatment)] = &[
    (EXECUTABLE, Acted),
    (ARGUMENTS, Acted),
    (ENVIRONMENT, Acted),
    (GETENV, Acted),
    (INITIALDIR, Acted),
    (INPUT, Acted),
    (OUTPUT, Acted),
    (ERROR, Acted),
    (LOG, Acted),
    (UNIVERSE, Acted),
    (REQUEST_CPUS, Acted),
    (REQUEST_MEMORY, Acted),
    (REQUEST_DISK, Acted),
    (SHOULD_TRANSFER, Acted),
    (WHEN_TO_TRANSFER, Acted),
    (TRANSFER_EXECUTABLE, Acted),
    (TRANSFER_INPUT, Acted),
    (TRANSFER_OUTPUT, Acted),
    (BATCH_NAME, Acted),
    (
        &[
            "allow_arguments_v1",
            "allow_environment_v1",
            "batch_id",
            "dagman_log",
            "description",
            "disk_usage",
            "dont_encrypt_input_files",
            "dont_encrypt_output_files",
            "email_attributes",
            "encrypt_input_files",
            "encrypt_output_files",
            "image_size",
            "interactive_args",
            "interactive_executable",
            "memory_usage",
            "notify_user",
            "skip_filechecks",
            "submit_event_notes",
            "submit_event_user_notes",
        ],
        Quiet,
    ),
    (&["notification"], NoEffect(&["never", "error"])),
    (&["priority", "prio"], NoEffect(ZERO)),
    (&["rank", "preferences"], NoEffect(ZERO)),
    (
        &[
            "copy_to_spool",
            "keep_claim_idle",
            "leave_in_queue",
            "load_profile",
            "log_xml",
            "manifest",
            "nice_user",
            "stream_error",
            "stream_input",
            "stream_output",
            "want_graceful_removal",
            "want_io_proxy",
        ],
        NoEffect(FALSE),
    ),
    (&["run_as_owner", "want_job_networking"], NoEffect(TRUE)),
    (
        &[
            "accounting_group",
            "accounting_group_user",
            "core_size",
            "coresize",
            "hold_kill_sig",
            "job_ad_information_attrs",
            "job_lease_duration",
            "job_machine_attrs",
            "job_machine_attrs_history_length",
            "job_max_vacate_time",
            "jobset",
            "kill_sig",
            "kill_sig_timeout",
            "manifest_dir",
            "match_list_length",
            "max_idle",
            "max_job_retirement_time",
            "max_materialize",
            "max_transfer_input_mb",
            "max_transfer_output_mb",
            "next_job_start_delay",
            "remove_kill_sig",
            "stack_size",
            "starter_debug",
            "starter_log",
            "ulog_execute_attrs",
            "want_ads",
        ],
        NoEffect(&[]),
    ),
    (&["requirements", "on_exit_remove"], Refused(TRUE)),
    (
        &[
            "encrypt_execute_directory",
            "erase_output_and_error_on_restart",
            "hold",
            "noop_job",
            "on_exit_hold",
            "periodic_hold",
            "periodic_release",
            "periodic_remove",
            "periodic_vacate",
            "preserve_relative_paths",
            "skip_if_dataflow",
            "suspend_job_at_exec",
            "use_scitoken",
            "use_scitokens",
            "use_x509userproxy",
        ],
        Refused(FALSE),
    ),
    (&["transfer_input", "transfer_output", "transfer_error"], Refused(TRUE)),
    (&["max_retries", "request_gpus", "requestgpus", "success_exit_code"], Refused(ZERO)),
    (&["machine_count", "node_count", "nodecount"], Refused(ONE)),
    (
        &[
            "allowed_execute_duration",
            "allowed_job_duration",
            "append_files",
            "buffer_files",
            "checkpoint_destination",
            "checkpoint_exit_code",
            "common_input_files",
            "compress_files",
            "concurrency_limits",
            "concurrency_limits_expr",
            "container_image",
            "container_service_names",
            "container_target_dir",
            "cron_day_of_month",
            "cron_day_of_week",
            "cron_hour",
            "cron_minute",
            "cron_month",
            "cron_prep_time",
            "cron_window",
            "deferral_prep_time",
            "deferral_time",
            "deferral_window",
            "docker_image",
            "docker_network_type",
            "docker_override_entrypoint",
            "docker_pull_policy",
            "exit_requirements",
            "fetch_files",
            "file_remaps",
            "gpus_maximum_capability",
            "gpus_minimum_capability",
            "gpus_minimum_memory",
            "gpus_minimum_runtime",
            "grid_resource",
            "jar_files",
            "java_vm_args",
            "local_files",
            "mount_under_scratch",
            "noop_job_exit_code",
            "noop_job_exit_signal",
            "on_exit_hold_reason",
            "on_exit_hold_subcode",
            "output_destination",
            "output_directory",
            "periodic_hold_reason",
            "periodic_hold_subcode",
            "primary_unix_group",
            "public_input_files",
            "remote_initialdir",
            "require_gpus",
            "retry_request_memory",
            "retry_request_memory_increase",
            "retry_request_memory_max",
            "retry_until",
            "scitokens_file",
            "send_credential",
            "shell",
            "tool_daemon_args",
            "tool_daemon_arguments",
            "tool_daemon_cmd",
            "transfer_checkpoint_files",
            "transfer_container",
            "transfer_output_remaps",
            "transfer_plugins",
            "use_oauth_services",
            "useoauthservices",
            "vm_type",
            "x509userproxy",
        ],
        Refused(&[]),
    ),
];

/// What becomes of the command `name` (lower case), if there is one.
pub(super) fn find(name: &str) -> Option<Treatment> {
    COMMANDS.iter().find(|(names, _)| names.contains(&name)).map(|(_, treatment)| *treatment)
}

/// All names of commands.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().flat_map(|(names, _)| names.iter().copied())
}
