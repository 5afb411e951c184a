/** The options of sudoers(5), by their effect on decisions and grants. */

/** Options that neither allow nor deny: environment, prompts, mail, logs and sessions. */
export const ignoredDefaults: ReadonlySet<string> = new Set(
  `admin_flag always_set_home authfail_message badpass_message compress_io editor env_check env_delete
  env_editor env_file env_keep env_reset exec_background ignore_audit_errors ignore_dot ignore_iolog_errors
  ignore_logfile_errors insults iolog_dir iolog_file iolog_flush iolog_group iolog_mode iolog_user lecture
  lecture_file lecture_status_dir listpw log_allowed log_denied log_exit_status log_format log_host log_year
  logfile loglinelen long_otp_prompt mail_all_cmnds mail_always mail_badpass mail_no_host mail_no_perms
  mail_no_user mailerflags mailerpath mailfrom mailsub mailto maxseq pam_acct_mgmt pam_askpass_service
  pam_login_service pam_rhost pam_ruser pam_service pam_session pam_setcred passprompt passprompt_override
  passprompt_regex passwd_timeout passwd_tries path_info pwfeedback restricted_env_file secure_path set_home
  set_logname set_utmp sudoers_locale syslog syslog_badpri syslog_goodpri syslog_maxlen syslog_pid
  timestamp_timeout timestamp_type timestampdir timestampowner tty_tickets umask umask_override use_pty
  utmp_runas verifypw visiblepw`.split(/\s+/),
);

/** Option → its value → the grant that stands for it. */
export const OPTION_GRANTS: {
  readonly [option: string]: { readonly [value: string]: string };
} = {
  authenticate: { false: "NOPASSWD" },
  setenv: { true: "SETENV" },
  noexec: { true: "NOEXEC" },
  intercept: { true: "INTERCEPT" },
  sudoedit_follow: { true: "FOLLOW" },
  log_input: { true: "LOG_INPUT" },
  log_output: { true: "LOG_OUTPUT" },
  send_mail: { true: "MAIL", false: "NOMAIL" },
};
