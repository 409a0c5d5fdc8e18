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
    /// A size, as a number of KiB.
    Kibibytes,
    /// A ClassAd expression.
    Expression,
    /// A signal's name or number.
    Signal,
    /// Names of limits, in HTCondor's order.
    Limits,
}
use Kind::{Bare, Boolean, Expression, Integer, Kibibytes, Limits, List, Path, Signal, Text};

/// A command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Command {
    /// Its names, the one to prefer first; what its attribute is called is one, too.
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
pub(super) const RETRY_DISK: &[&str] = &["retry_request_disk"];
pub(super) const SHOULD_TRANSFER: &[&str] = &["should_transfer_files", "shouldtransferfiles"];
pub(super) const WHEN_TO_TRANSFER: &[&str] = &["when_to_transfer_output", "whentotransferoutput"];
pub(super) const TRANSFER_EXECUTABLE: &[&str] = &["transfer_executable", "transferexecutable"];
pub(super) const TRANSFER_INPUT: &[&str] = &["transfer_input_files", "transferinputfiles"];
pub(super) const TRANSFER_OUTPUT: &[&str] = &["transfer_output_files", "transferoutputfiles"];
pub(super) const CHECKPOINT_EXIT_CODE: &[&str] = &["checkpoint_exit_code", "successcheckpointexitcode"];
pub(super) const TRANSFER_CHECKPOINT: &[&str] = &["transfer_checkpoint_files", "transfercheckpoint"];
pub(super) const OUTPUT_DESTINATION: &[&str] = &["output_destination", "outputdestination"];
pub(super) const REMAPS: &[&str] = &["transfer_output_remaps", "transferoutputremaps"];
pub(super) const BATCH_NAME: &[&str] = &["batch_name", "jobbatchname"];
pub(super) const REQUIREMENTS: &[&str] = &["requirements"];
pub(super) const RANK: &[&str] = &["rank", "preferences"];
pub(super) const PRIORITY: &[&str] = &["priority", "prio", "jobprio"];
pub(super) const ACCOUNTING_GROUP: &[&str] = &["accounting_group", "acctgroup", "accountinggroup"];
pub(super) const ACCOUNTING_USER: &[&str] = &["accounting_group_user", "acctgroupuser"];
pub(super) const NOTIFICATION: &[&str] = &["notification", "jobnotification"];
pub(super) const NOTIFY_USER: &[&str] = &["notify_user", "notifyuser"];
pub(super) const LIMITS: &[&str] = &["concurrency_limits"];
pub(super) const LIMITS_EXPRESSION: &[&str] = &["concurrency_limits_expr"];
pub(super) const CONTAINER_IMAGE: &[&str] = &["container_image", "containerimage"];
pub(super) const DOCKER_IMAGE: &[&str] = &["docker_image", "dockerimage"];
pub(super) const MAX_RETRIES: &[&str] = &["max_retries", "jobmaxretries"];
pub(super) const RETRY_UNTIL: &[&str] = &["retry_until"];
pub(super) const SUCCESS_EXIT_CODE: &[&str] = &["success_exit_code", "jobsuccessexitcode"];
pub(super) const ON_EXIT_HOLD: &[&str] = &["on_exit_hold", "onexithold"];
pub(super) const ON_EXIT_REMOVE: &[&str] = &["on_exit_remove", "onexitremove"];
pub(super) const MAX_MATERIALIZE: &[&str] = &["max_materialize", "jobmaterializelimit"];
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
pub(super) const REQUIRE_GPUS: &[&str] = &["require_gpus", "requiregpus"];
pub(super) const GPUS_LEAST_CAPABILITY: &[&str] = &["gpus_minimum_capability", "gpusmincapability"];
pub(super) const GPUS_MOST_CAPABILITY: &[&str] = &["gpus_maximum_capability", "gpusmaxcapability"];
pub(super) const GPUS_LEAST_MEMORY: &[&str] = &["gpus_minimum_memory", "gpusminmemory"];
pub(super) const GPUS_LEAST_RUNTIME: &[&str] = &["gpus_minimum_runtime", "gpusminruntime"];

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
    plain(OUTPUT_DESTINATION, Acted),
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
    with(&["dagman_log", "dagmannodeslog"], Quiet, "DAGManNodesLog", Path),
    with(&["description", "jobdescription"], Quiet, "JobDescription", Text),
    with(&["disk_usage", "diskusage"], Quiet, "DiskUsage", Kibibytes),
    with(&["image_size", "imagesize"], Quiet, "ImageSize", Kibibytes),
    with(&["email_attributes", "emailattributes"], Acted, "EmailAttributes", List),
    // What travels is encrypted, all of it.
    with(&["encrypt_input_files", "encryptinputfiles"], Quiet, "EncryptInputFiles", Text),
    with(&["encrypt_output_files", "encryptoutputfiles"], Quiet, "EncryptOutputFiles", Text),
    with(&["dont_encrypt_input_files", "dontencryptinputfiles"], Quiet, "DontEncryptInputFiles", Text),
    with(&["dont_encrypt_output_files", "dontencryptoutputfiles"], Quiet, "DontEncryptOutputFiles", Text),
    with(NOTIFY_USER, Acted, "NotifyUser", Text),
    with(&["submit_event_notes", "submiteventnotes"], Acted, "SubmitEventNotes", Text),
    with(&["submit_event_user_notes", "submiteventusernotes"], Acted, "SubmitEventUserNotes", Text),
    plain(NOTIFICATION, Acted),
    plain(&["copy_to_spool", "nice_user", "niceuser"], NoEffect(FALSE)),
    with(&["keep_claim_idle", "keepclaimidle"], NoEffect(FALSE), "KeepClaimIdle", Expression),
    with(&["leave_in_queue", "leavejobinqueue"], Acted, "LeaveJobInQueue", Expression),
    with(&["load_profile", "loadprofile"], NoEffect(FALSE), "LoadProfile", Boolean),
    with(&["log_xml", "userlogusexml"], Acted, "UserLogUseXML", Boolean),
    with(&["manifest", "manifestdesired"], NoEffect(FALSE), "ManifestDesired", Boolean),
    with(&["manifest_dir", "manifestdir"], NoEffect(&[]), "ManifestDir", Text),
    with(&["stream_error", "streamerr"], Acted, "StreamErr", Boolean),
    with(&["stream_input", "streamin"], NoEffect(FALSE), "StreamIn", Boolean),
    with(&["stream_output", "streamout"], Acted, "StreamOut", Boolean),
    with(&["want_graceful_removal", "wantgracefulremoval"], Acted, "WantGracefulRemoval", Expression),
    with(&["want_io_proxy", "wantioproxy"], NoEffect(FALSE), "WantIOProxy", Boolean),
    with(&["run_as_owner", "runasowner"], NoEffect(TRUE), "RunAsOwner", Boolean),
    with(&["want_job_networking", "wantjobnetworking"], NoEffect(TRUE), "WantJobNetworking", Boolean),
    with(&["core_size", "coresize"], Acted, "CoreSize", Integer),
    with(&["job_ad_information_attrs", "jobadinformationattrs"], Acted, "JobAdInformationAttrs", Text),
    with(&["job_lease_duration", "jobleaseduration"], Acted, "JobLeaseDuration", Expression),
    with(&["job_machine_attrs", "jobmachineattrs"], NoEffect(&[]), "JobMachineAttrs", Text),
    with(&["job_max_vacate_time", "jobmaxvacatetime"], Acted, "JobMaxVacateTime", Expression),
    with(&["jobset"], NoEffect(&[]), "JobSetName", Bare),
    with(&["kill_sig", "killsig"], Acted, "KillSig", Signal),
    with(&["hold_kill_sig", "holdkillsig"], Acted, "HoldKillSig", Signal),
    with(&["remove_kill_sig", "removekillsig"], Acted, "RemoveKillSig", Signal),
    with(&["kill_sig_timeout", "killsigtimeout"], Acted, "KillSigTimeout", Integer),
    // Jobs that wait cost nothing here.
    with(&["max_idle", "jobmaterializemaxidle"], Quiet, "JobMaterializeMaxIdle", Integer),
    plain(MAX_MATERIALIZE, Acted),
    with(&["max_job_retirement_time", "maxjobretirementtime"], NoEffect(&[]), "MaxJobRetirementTime", Expression),
    with(&["max_transfer_input_mb", "maxtransferinputmb"], Acted, "MaxTransferInputMB", Expression),
    with(&["max_transfer_output_mb", "maxtransferoutputmb"], Acted, "MaxTransferOutputMB", Expression),
    with(&["next_job_start_delay", "nextjobstartdelay"], NoEffect(&[]), "NextJobStartDelay", Expression),
    with(&["stack_size", "stacksize"], NoEffect(&[]), "StackSize", Integer),
    with(&["starter_debug", "jobstarterdebug"], NoEffect(&[]), "JobStarterDebug", Text),
    with(&["starter_log", "jobstarterlog"], NoEffect(&[]), "JobStarterLog", Path),
    with(&["ulog_execute_attrs", "userlogexecuteeventattrs"], NoEffect(&[]), "UserLogExecuteEventAttrs", Text),
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
    with(&["on_exit_hold_reason", "onexitholdreason"], Acted, "OnExitHoldReason", Expression),
    with(&["on_exit_hold_subcode", "onexitholdsubcode"], Acted, "OnExitHoldSubCode", Expression),
    with(&["periodic_hold", "periodichold"], Acted, "PeriodicHold", Expression),
    with(&["periodic_hold_reason", "periodicholdreason"], Acted, "PeriodicHoldReason", Expression),
    with(&["periodic_hold_subcode", "periodicholdsubcode"], Acted, "PeriodicHoldSubCode", Expression),
    with(&["periodic_release", "periodicrelease"], Acted, "PeriodicRelease", Expression),
    with(&["periodic_remove", "periodicremove"], Acted, "PeriodicRemove", Expression),
    with(&["periodic_vacate", "periodicvacate"], Acted, "PeriodicVacate", Expression),
    with(&["allowed_execute_duration", "allowedexecuteduration"], Acted, "AllowedExecuteDuration", Expression),
    with(&["allowed_job_duration", "allowedjobduration"], Acted, "AllowedJobDuration", Expression),
    with(LIMITS_EXPRESSION, Acted, "ConcurrencyLimits", Expression),
    with(LIMITS, Acted, "ConcurrencyLimits", Limits),
    plain(RETRY_MEMORY, Acted),
    plain(RETRY_MEMORY_INCREASE, Acted),
    plain(RETRY_MEMORY_MAX, Acted),
    plain(RETRY_DISK, Acted),
    plain(CONTAINER_IMAGE, Acted),
    plain(DOCKER_IMAGE, Acted),
    with(&["encrypt_execute_directory", "encryptexecutedirectory"], Refused(FALSE), "EncryptExecuteDirectory", Boolean),
    with(
        &["erase_output_and_error_on_restart", "eraseoutputanderroronrestart"],
        Acted,
        "EraseOutputAndErrorOnRestart",
        Boolean,
    ),
    with(&["noop_job", "isnoopjob"], Acted, "IsNoopJob", Expression),
    with(&["noop_job_exit_code", "noopjobexitcode"], Acted, "NoopJobExitCode", Expression),
    with(&["noop_job_exit_signal", "noopjobexitsignal"], Acted, "NoopJobExitSignal", Expression),
    with(&["preserve_relative_paths", "preserverelativepaths"], Acted, "PreserveRelativePaths", Boolean),
    with(&["skip_if_dataflow", "skipifdataflow"], Refused(FALSE), "SkipIfDataflow", Boolean),
    plain(&["suspend_job_at_exec", "use_scitoken", "use_scitokens", "use_x509userproxy"], Refused(FALSE)),
    with(&["transfer_error", "transfererr"], Acted, "TransferErr", Boolean),
    with(&["transfer_output", "transferout"], Acted, "TransferOut", Boolean),
    with(&["transfer_input", "transferin"], Acted, "TransferIn", Boolean),
    plain(&["machine_count", "node_count", "nodecount"], Refused(ONE)),
    with(&["container_service_names", "containerservicenames"], Refused(&[]), "ContainerServiceNames", Text),
    with(&["container_target_dir", "containertargetdir"], Refused(&[]), "ContainerTargetDir", Text),
    // Containers see the network as the node does, and images are kept where the node keeps them.
    with(&["docker_network_type", "dockernetworktype"], Refused(&["host"]), "DockerNetworkType", Text),
    with(
        &["docker_override_entrypoint", "dockeroverrideentrypoint"],
        Refused(TRUE),
        "DockerOverrideEntrypoint",
        Boolean,
    ),
    with(&["docker_pull_policy", "dockerpullpolicy"], NoEffect(&["missing"]), "DockerPullPolicy", Text),
    with(&["remote_initialdir", "remoteiwd"], Refused(&[]), "RemoteIwd", Text),
    with(&["append_files", "appendfiles"], Refused(&[]), "AppendFiles", Text),
    with(&["checkpoint_destination", "checkpointdestination"], Refused(&[]), "CheckpointDestination", Text),
    plain(
        &[
            "buffer_files",
            "bufferfiles",
            "common_input_files",
            "commoninputfiles",
            "compress_files",
            "compressfiles",
            "exit_requirements",
            "fetch_files",
            "fetchfiles",
            "file_remaps",
            "fileremaps",
            "grid_resource",
            "gridresource",
            "jar_files",
            "jarfiles",
            "java_vm_args",
            "local_files",
            "localfiles",
            "mount_under_scratch",
            "mountunderscratch",
            "output_directory",
            "outputdirectory",
            "primary_unix_group",
            "primaryunixgroup",
            "public_input_files",
            "publicinputfiles",
            "scitokens_file",
            "scitokensfile",
            "send_credential",
            "tool_daemon_args",
            "tool_daemon_arguments",
            "tool_daemon_cmd",
            "tooldaemoncmd",
            "transfer_container",
            "transfercontainer",
            "transfer_plugins",
            "transferplugins",
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

/// The names of commands that people write.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().flat_map(|command| {
        let of_ad = |name: &str| command.attribute.is_some_and(|(attribute, _)| attribute.eq_ignore_ascii_case(name));
        command.names.iter().copied().filter(move |name| !of_ad(name))
    })
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
                Some(start) => !start.is_empty() && plain(name).starts_with(&plain(start)),
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
