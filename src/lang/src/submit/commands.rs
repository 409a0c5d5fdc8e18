//! The commands of submit descriptions: what becomes of each here, and what HTCondor's job ad calls it.

/// What becomes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// It has its effect.
    Acted,
    /// Means nothing here, and nothing is lost.
    Quiet,
    /// Not acted on; jobs give the same results all the same. Quiet when it has one of these values.
    NoEffect(&'static [&'static str]),
    /// Not acted on, and ignoring it would change results: refused unless it has one of these values.
    Refused(&'static [&'static str]),
}
use Treatment::{Acted, NoEffect, Quiet, Refused};

/// How a command's value becomes an attribute's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As it is, as a string.
    Text,
    /// The same, without double quotes around it.
    Bare,
    /// Words and commas, as a string with single commas.
    List,
    /// A file name, seen from the job's directory.
    Path,
    /// True or false.
    Boolean,
    /// A whole number.
    Integer,
    /// A ClassAd expression.
    Expression,
    /// A signal's name or number.
    Signal,
    /// Names of limits, in HTCondor's order.
    Limits,
}
use Kind::{Bare, Boolean, Expression, Integer, Limits, List, Path, Signal, Text};

/// A command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Command {
    /// Its names, the one to prefer first.
    pub(super) names: &'static [&'static str],
    pub(super) treatment: Treatment,
    /// The attribute of the job ad that its value becomes; none where it is worked out from more than the value, or there is none.
    pub(super) attribute: Option<(&'static str, Kind)>,
}

const fn plain(names: &'static [&'static str], treatment: Treatment) -> Command {
    Command { names, treatment, attribute: None }
}

const fn with(names: &'static [&'static str], treatment: Treatment, attribute: &'static str, kind: Kind) -> Command {
    Command { names, treatment, attribute: Some((attribute, kind)) }
}

const FALSE: &[&str] = &["false"];
const TRUE: &[&str] = &["true"];
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
pub(super) const REQUEST_GPUS: &[&str] = &["request_gpus", "requestgpus"];
pub(super) const RETRY_MEMORY: &[&str] = &["retry_request_memory"];
pub(super) const RETRY_MEMORY_INCREASE: &[&str] = &["retry_request_memory_increase"];
pub(super) const RETRY_MEMORY_MAX: &[&str] = &["retry_request_memory_max"];
pub(super) const SHOULD_TRANSFER: &[&str] = &["should_transfer_files", "shouldtransferfiles"];
pub(super) const WHEN_TO_TRANSFER: &[&str] = &["when_to_transfer_output", "whentotransferoutput"];
pub(super) const TRANSFER_EXECUTABLE: &[&str] = &["transfer_executable", "transferexecutable"];
pub(super) const TRANSFER_INPUT: &[&str] = &["transfer_input_files", "transferinputfiles"];
pub(super) const TRANSFER_OUTPUT: &[&str] = &["transfer_output_files", "transferoutputfiles"];
pub(super) const CHECKPOINT_EXIT_CODE: &[&str] = &["checkpoint_exit_code"];
pub(super) const TRANSFER_CHECKPOINT: &[&str] = &["transfer_checkpoint_files"];
pub(super) const REMAPS: &[&str] = &["transfer_output_remaps", "transferoutputremaps"];
pub(super) const BATCH_NAME: &[&str] = &["batch_name", "jobbatchname"];
pub(super) const REQUIREMENTS: &[&str] = &["requirements"];
pub(super) const RANK: &[&str] = &["rank", "preferences"];
pub(super) const PRIORITY: &[&str] = &["priority", "prio", "jobprio"];
pub(super) const ACCOUNTING_GROUP: &[&str] = &["accounting_group", "acctgroup"];
pub(super) const ACCOUNTING_USER: &[&str] = &["accounting_group_user", "acctgroupuser"];
pub(super) const NOTIFICATION: &[&str] = &["notification"];
pub(super) const CONTAINER_IMAGE: &[&str] = &["container_image"];
pub(super) const DOCKER_IMAGE: &[&str] = &["docker_image"];
pub(super) const MAX_RETRIES: &[&str] = &["max_retries"];
pub(super) const RETRY_UNTIL: &[&str] = &["retry_until"];
pub(super) const SUCCESS_EXIT_CODE: &[&str] = &["success_exit_code"];
pub(super) const ON_EXIT_HOLD: &[&str] = &["on_exit_hold"];
pub(super) const ON_EXIT_REMOVE: &[&str] = &["on_exit_remove"];
pub(super) const MAX_MATERIALIZE: &[&str] = &["max_materialize"];
pub(super) const HOLD: &[&str] = &["hold"];
pub(super) const DEFERRAL_TIME: &[&str] = &["deferral_time", "deferraltime"];
pub(super) const DEFERRAL_WINDOW: &[&str] = &["cron_window", "cronwindow", "deferral_window", "deferralwindow"];
pub(super) const DEFERRAL_PREP_TIME: &[&str] =
    &["cron_prep_time", "cronpreptime", "deferral_prep_time", "deferralpreptime"];
/// In the order of [`crate::cron::FIELDS`].
pub(super) const CRON: [&[&str]; 5] = [
    &["cron_minute", "cronminute"],
    &["cron_hour", "cronhour"],
    &["cron_day_of_month", "crondayofmonth"],
    &["cron_month", "cronmonth"],
    &["cron_day_of_week", "crondayofweek"],
];
pub(super) const SHELL: &[&str] = &["shell"];
pub(super) const REQUIRE_GPUS: &[&str] = &["require_gpus"];
pub(super) const GPUS_LEAST_CAPABILITY: &[&str] = &["gpus_minimum_capability"];
pub(super) const GPUS_MOST_CAPABILITY: &[&str] = &["gpus_maximum_capability"];
pub(super) const GPUS_LEAST_MEMORY: &[&str] = &["gpus_minimum_memory"];
pub(super) const GPUS_LEAST_RUNTIME: &[&str] = &["gpus_minimum_runtime"];

const COMMANDS: &[Command] = &[
    plain(EXECUTABLE, Acted),
    plain(ARGUMENTS, Acted),
    plain(ENVIRONMENT, Acted),
    plain(GETENV, Acted),
    plain(INITIALDIR, Acted),
    plain(INPUT, Acted),
    plain(OUTPUT, Acted),
    plain(ERROR, Acted),
    plain(LOG, Acted),
    plain(UNIVERSE, Acted),
    plain(REQUEST_CPUS, Acted),
    plain(REQUEST_MEMORY, Acted),
    plain(REQUEST_DISK, Acted),
    plain(REQUEST_GPUS, Acted),
    plain(SHOULD_TRANSFER, Acted),
    plain(WHEN_TO_TRANSFER, Acted),
    plain(TRANSFER_EXECUTABLE, Acted),
    plain(TRANSFER_INPUT, Acted),
    plain(TRANSFER_OUTPUT, Acted),
    with(CHECKPOINT_EXIT_CODE, Acted, "SuccessCheckpointExitCode", Integer),
    with(TRANSFER_CHECKPOINT, Acted, "TransferCheckpoint", Text),
    with(REMAPS, Acted, "TransferOutputRemaps", Bare),
    plain(BATCH_NAME, Acted),
    plain(REQUIREMENTS, Acted),
    plain(RANK, Acted),
    plain(PRIORITY, Acted),
    plain(ACCOUNTING_GROUP, Acted),
    plain(ACCOUNTING_USER, Quiet),
    plain(
        &[
            "allow_arguments_v1",
            "allow_environment_v1",
            "batch_id",
            "interactive_args",
            "interactive_executable",
            "memory_usage",
            "skip_filechecks",
            "submitwarnemptymatches",
            "submit_warn_empty_matches",
        ],
        Quiet,
    ),
    with(&["dagman_log"], Quiet, "DAGManNodesLog", Path),
    with(&["description"], Quiet, "JobDescription", Text),
    with(&["disk_usage"], Quiet, "DiskUsage", Integer),
    with(&["image_size"], Quiet, "ImageSize", Integer),
    with(&["email_attributes"], Quiet, "EmailAttributes", List),
    // What travels is encrypted, all of it.
    with(&["encrypt_input_files"], Quiet, "EncryptInputFiles", Text),
    with(&["encrypt_output_files"], Quiet, "EncryptOutputFiles", Text),
    with(&["dont_encrypt_input_files"], Quiet, "DontEncryptInputFiles", Text),
    with(&["dont_encrypt_output_files"], Quiet, "DontEncryptOutputFiles", Text),
    with(&["notify_user"], Quiet, "NotifyUser", Text),
    with(&["submit_event_notes"], Acted, "SubmitEventNotes", Text),
    with(&["submit_event_user_notes"], Acted, "SubmitEventUserNotes", Text),
    plain(NOTIFICATION, NoEffect(&["never", "error"])),
    plain(&["copy_to_spool", "nice_user"], NoEffect(FALSE)),
    with(&["keep_claim_idle"], NoEffect(FALSE), "KeepClaimIdle", Expression),
    with(&["leave_in_queue"], Acted, "LeaveJobInQueue", Expression),
    with(&["load_profile"], NoEffect(FALSE), "LoadProfile", Boolean),
    with(&["log_xml"], Acted, "UserLogUseXML", Boolean),
    with(&["manifest"], NoEffect(FALSE), "ManifestDesired", Boolean),
    with(&["manifest_dir"], NoEffect(&[]), "ManifestDir", Text),
    with(&["stream_error"], Acted, "StreamErr", Boolean),
    with(&["stream_input"], NoEffect(FALSE), "StreamIn", Boolean),
    with(&["stream_output"], Acted, "StreamOut", Boolean),
    with(&["want_graceful_removal"], Acted, "WantGracefulRemoval", Expression),
    with(&["want_io_proxy"], NoEffect(FALSE), "WantIOProxy", Boolean),
    with(&["run_as_owner"], NoEffect(TRUE), "RunAsOwner", Boolean),
    with(&["want_job_networking"], NoEffect(TRUE), "WantJobNetworking", Boolean),
    with(&["core_size", "coresize"], NoEffect(&[]), "CoreSize", Expression),
    with(&["job_ad_information_attrs"], Acted, "JobAdInformationAttrs", Text),
    with(&["job_lease_duration"], NoEffect(&[]), "JobLeaseDuration", Expression),
    with(&["job_machine_attrs"], NoEffect(&[]), "JobMachineAttrs", Text),
    with(&["job_max_vacate_time"], Acted, "JobMaxVacateTime", Expression),
    with(&["jobset"], NoEffect(&[]), "JobSetName", Bare),
    with(&["kill_sig"], Acted, "KillSig", Signal),
    with(&["hold_kill_sig"], Acted, "HoldKillSig", Signal),
    with(&["remove_kill_sig"], Acted, "RemoveKillSig", Signal),
    with(&["kill_sig_timeout"], Acted, "KillSigTimeout", Integer),
    // Jobs that wait cost nothing here.
    with(&["max_idle"], Quiet, "JobMaterializeMaxIdle", Integer),
    plain(MAX_MATERIALIZE, Acted),
    with(&["max_job_retirement_time"], NoEffect(&[]), "MaxJobRetirementTime", Expression),
    with(&["max_transfer_input_mb"], NoEffect(&[]), "MaxTransferInputMB", Expression),
    with(&["max_transfer_output_mb"], NoEffect(&[]), "MaxTransferOutputMB", Expression),
    with(&["next_job_start_delay"], NoEffect(&[]), "NextJobStartDelay", Expression),
    with(&["stack_size"], NoEffect(&[]), "StackSize", Integer),
    with(&["starter_debug"], NoEffect(&[]), "JobStarterDebug", Text),
    with(&["starter_log"], NoEffect(&[]), "JobStarterLog", Path),
    with(&["ulog_execute_attrs"], NoEffect(&[]), "UserLogExecuteEventAttrs", Text),
    plain(&["job_machine_attrs_history_length", "match_list_length", "want_ads"], NoEffect(&[])),
    plain(MAX_RETRIES, Acted),
    plain(RETRY_UNTIL, Acted),
    plain(SUCCESS_EXIT_CODE, Acted),
    plain(ON_EXIT_HOLD, Acted),
    plain(ON_EXIT_REMOVE, Acted),
    plain(HOLD, Acted),
    plain(DEFERRAL_TIME, Acted),
    plain(DEFERRAL_WINDOW, Acted),
    plain(DEFERRAL_PREP_TIME, Acted),
    plain(CRON[0], Acted),
    plain(CRON[1], Acted),
    plain(CRON[2], Acted),
    plain(CRON[3], Acted),
    plain(CRON[4], Acted),
    plain(SHELL, Acted),
    plain(REQUIRE_GPUS, Acted),
    plain(GPUS_LEAST_CAPABILITY, Acted),
    plain(GPUS_MOST_CAPABILITY, Acted),
    plain(GPUS_LEAST_MEMORY, Acted),
    plain(GPUS_LEAST_RUNTIME, Acted),
    with(&["on_exit_hold_reason"], Acted, "OnExitHoldReason", Expression),
    with(&["on_exit_hold_subcode"], Acted, "OnExitHoldSubCode", Expression),
    with(&["periodic_hold"], Acted, "PeriodicHold", Expression),
    with(&["periodic_hold_reason"], Acted, "PeriodicHoldReason", Expression),
    with(&["periodic_hold_subcode"], Acted, "PeriodicHoldSubCode", Expression),
    with(&["periodic_release"], Acted, "PeriodicRelease", Expression),
    with(&["periodic_remove"], Acted, "PeriodicRemove", Expression),
    with(&["periodic_vacate"], Acted, "PeriodicVacate", Expression),
    with(&["allowed_execute_duration"], Acted, "AllowedExecuteDuration", Expression),
    with(&["allowed_job_duration"], Acted, "AllowedJobDuration", Expression),
    with(&["concurrency_limits_expr"], Refused(&[]), "ConcurrencyLimits", Expression),
    with(&["concurrency_limits"], Acted, "ConcurrencyLimits", Limits),
    plain(RETRY_MEMORY, Acted),
    plain(RETRY_MEMORY_INCREASE, Acted),
    plain(RETRY_MEMORY_MAX, Acted),
    plain(CONTAINER_IMAGE, Acted),
    plain(DOCKER_IMAGE, Acted),
    with(&["encrypt_execute_directory"], Refused(FALSE), "EncryptExecuteDirectory", Boolean),
    with(&["erase_output_and_error_on_restart"], Acted, "EraseOutputAndErrorOnRestart", Boolean),
    with(&["noop_job"], Acted, "IsNoopJob", Expression),
    with(&["noop_job_exit_code"], Acted, "NoopJobExitCode", Expression),
    with(&["noop_job_exit_signal"], Acted, "NoopJobExitSignal", Expression),
    with(&["preserve_relative_paths"], Acted, "PreserveRelativePaths", Boolean),
    with(&["skip_if_dataflow"], Refused(FALSE), "SkipIfDataflow", Boolean),
    plain(&["suspend_job_at_exec", "use_scitoken", "use_scitokens", "use_x509userproxy"], Refused(FALSE)),
    with(&["transfer_error"], Acted, "TransferErr", Boolean),
    with(&["transfer_output"], Acted, "TransferOut", Boolean),
    plain(&["transfer_input"], Refused(TRUE)),
    plain(&["machine_count", "node_count", "nodecount"], Refused(ONE)),
    with(&["container_service_names"], Refused(&[]), "ContainerServiceNames", Text),
    with(&["container_target_dir"], Refused(&[]), "ContainerTargetDir", Text),
    // Containers see the network as the node does, and images are kept where the node keeps them.
    with(&["docker_network_type"], Refused(&["host"]), "DockerNetworkType", Text),
    with(&["docker_override_entrypoint"], Refused(TRUE), "DockerOverrideEntrypoint", Boolean),
    with(&["docker_pull_policy"], NoEffect(&["missing"]), "DockerPullPolicy", Text),
    with(&["remote_initialdir"], Refused(&[]), "RemoteIwd", Text),
    with(&["append_files"], Refused(&[]), "AppendFiles", Text),
    with(&["output_destination"], Refused(&[]), "OutputDestination", Text),
    with(&["checkpoint_destination"], Refused(&[]), "CheckpointDestination", Text),
    plain(
        &[
            "buffer_files",
            "common_input_files",
            "compress_files",
            "exit_requirements",
            "fetch_files",
            "file_remaps",
            "grid_resource",
            "jar_files",
            "java_vm_args",
            "local_files",
            "mount_under_scratch",
            "output_directory",
            "primary_unix_group",
            "public_input_files",
            "retry_request_disk",
            "scitokens_file",
            "send_credential",
            "tool_daemon_args",
            "tool_daemon_arguments",
            "tool_daemon_cmd",
            "transfer_container",
            "transfer_plugins",
            "use_oauth_services",
            "useoauthservices",
            "vm_type",
            "x509userproxy",
        ],
        Refused(&[]),
    ),
];

/// The command `name` (lower case), if there is one.
pub(super) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.names.contains(&name))
}

/// All names of commands.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().flat_map(|command| command.names.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_tells_of_every_command() {
        let page = include_str!("../../../../man/vo-htcondor.7");
        let table = page.split(".Sh ").find(|section| section.starts_with("SUBMIT DESCRIPTIONS")).unwrap_or_default();
        let told: Vec<&str> =
            table.lines().filter(|line| line.starts_with(".It Ic ")).flat_map(str::split_whitespace).collect();
        let plain = |name: &str| name.replace('_', "");
        let is_told = |name: &str| {
            told.iter().any(|word| match word.strip_suffix('*') {
                Some(start) => !start.is_empty() && name.starts_with(start),
                None => plain(word) == plain(name),
            })
        };
        // Of those that are treated alike each name is a command of its own.
        let own = |c: &Command| if c.treatment == Acted || c.names.len() < 3 { 1 } else { c.names.len() };
        let all = COMMANDS.iter().flat_map(|c| c.names.iter().take(own(c)));
        let missing: Vec<_> = all.filter(|name| !is_told(name)).collect();
        assert!(missing.is_empty(), "vo-htcondor(7) says nothing of {missing:?}");
        assert!(!is_told("grid_resources"));
    }
}
