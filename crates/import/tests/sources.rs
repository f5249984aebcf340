//! One source after another: what is read, and what is said about the rest.

use rota_calendar::{DayRule, Misfire, Overlap, Rule};
use rota_import::{Action, Crontab, Import, Imported, celery, crontab, dkron, kubernetes, xxl_job};
use rota_types::{Span, Timestamp};

/// A schedule in one line: name, expression, zone, what it runs, and what is not as usual.
fn line(schedule: &Imported) -> String {
    let Imported { name, timetable, days, policy, action, paused, .. } = schedule;
    let both = if *days == DayRule::Both { " (both days)" } else { "" };
    let misfire = match policy.misfire {
        Misfire::Skip => "skip",
        Misfire::Once => "once",
        Misfire::All { .. } => "all",
    };
    let overlap = match policy.overlap {
        Overlap::Skip => "skip",
        Overlap::Allow => "allow",
        Overlap::Queue { .. } => "queue",
        Overlap::CancelRunning => "cancel",
    };
    let action = match action {
        Action::Shell { script, .. } => format!("sh {script:?}"),
        Action::Command { argv, .. } => format!("{argv:?}"),
        Action::Http { method, url, .. } => format!("{method} {url}"),
        Action::Handler { name, argument } => format!("{name}({argument})"),
    };
    let paused = if *paused { ", paused" } else { "" };
    let zone = timetable.zone.name();
    format!(
        "{name}: {}{both} {zone}, missed {misfire}, overlap {overlap}{paused}: {action}",
        timetable.rule
    )
}

fn lines(import: &Import) -> Vec<String> {
    import.schedules.iter().map(line).collect()
}

fn notes(import: &Import) -> Vec<String> {
    import.notes.iter().map(|note| format!("{}: {}", note.place, note.message)).collect()
}

const USER: Crontab<'_> = Crontab { has_users: false, timezone: "Europe/Berlin" };

#[test]
fn a_crontab_is_read_line_by_line() {
    let import = crontab(
        "# backups\nSHELL=/bin/bash\nPATH = \"/usr/local/bin:/usr/bin\"\n\n\
         30 2 * * *   /opt/backup.sh --full\n\
         */5  *  * * 1-5 LANG=C poll\n\
         @daily poll again\n\
         CRON_TZ=America/New_York\nRANDOM_DELAY=10\n\
         0 0 */2 * MON cleanup\n",
        USER,
    );
    assert_eq!(
        lines(&import),
        [
            "backup.sh: 30 2 * * * (both days) Europe/Berlin, missed skip, overlap allow: sh \"/opt/backup.sh --full\"",
            "poll: */5 * * * 1-5 (both days) Europe/Berlin, missed skip, overlap allow: sh \"LANG=C poll\"",
            "poll-2: @daily Europe/Berlin, missed skip, overlap allow: sh \"poll again\"",
            "cleanup: 0 0 */2 * MON (both days) America/New_York, missed skip, overlap allow: sh \"cleanup\"",
        ]
    );
    assert_eq!(notes(&import), [""; 0]);
    let env = vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin".to_owned())];
    assert_eq!(
        import.schedules[0].action,
        Action::Shell {
            shell: Some("/bin/bash".to_owned()),
            script: "/opt/backup.sh --full".to_owned(),
            stdin: None,
            env
        }
    );
    let jitters = import.schedules.iter().map(|schedule| schedule.timetable.jitter);
    let jitters: Vec<Span> = jitters.collect();
    assert_eq!(jitters, [Span::ZERO, Span::ZERO, Span::ZERO, Span::from_secs(600)]);
    // Cron takes a star with a step for a star: every second day, if that is a Monday.
    let Rule::Cron(cleanup) = &import.schedules[3].timetable.rule else { panic!("an expression") };
    assert_eq!(Rule::Cron(cleanup.clone()).describe().matches("if that is").count(), 1);
}

#[test]
fn percent_signs_are_standard_input_unless_escaped() {
    let import = crontab("0 9 * * * mail -s hi%Hello%you\n0 9 * * * date +\\%F \\n\n", USER);
    let read = |schedule: &Imported| match &schedule.action {
        Action::Shell { script, stdin, .. } => (script.clone(), stdin.clone()),
        other => panic!("{other:?}"),
    };
    let read: Vec<_> = import.schedules.iter().map(read).collect();
    assert_eq!(
        read,
        [
            ("mail -s hi".to_owned(), Some("Hello\nyou\n".to_owned())),
            ("date +%F \\n".to_owned(), None)
        ]
    );
}

#[test]
fn what_a_crontab_can_not_keep_is_told() {
    let import = crontab(
        "MAILTO=ops@example.org\nMAILTO=\"\"\n@reboot root start\n0 25 * * * root late\n0 1 * * * root\nnonsense\n\
         17 3 * * * www-data sync\nCRON_TZ=Mars/Base\n0 1 * * * root land\nRANDOM_DELAY=some\n",
        Crontab { has_users: true, timezone: "UTC" },
    );
    let read = "sync: 17 3 * * * (both days) UTC, missed skip, overlap allow: sh \"sync\"";
    assert_eq!(lines(&import), [read]);
    let told = notes(&import);
    let starts = [
        "line 1: MAILTO: nothing is mailed; output is kept with each task",
        "line 3: left out: schedule, column 1: @reboot is not a time",
        "line 4: left out: hour, column 3: 25 is not an hour: 0–23",
        "line 5: left out: no command behind the user",
        "line 6: left out: neither five fields and a command, nor a variable",
        "line 7: it ran as www-data; here it runs as the worker's user",
        "line 9: left out: timezone: \"Mars/Base\" is not a time zone",
        "line 10: RANDOM_DELAY: some is not a number of minutes; ignored",
    ];
    assert_eq!(told.len(), starts.len(), "{told:#?}");
    for (told, start) in told.iter().zip(starts) {
        assert!(told.starts_with(start), "{told}");
    }
}

#[test]
fn cron_jobs_of_kubernetes_are_read() {
    let import = kubernetes(
        "apiVersion: batch/v1
kind: CronJob
metadata: {name: report, namespace: shop}
spec:
  schedule: '0 6 * * 1'
  timeZone: Europe/Paris
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 300
  successfulJobsHistoryLimit: 3
  jobTemplate:
    spec:
      backoffLimit: 4
      template:
        spec:
          restartPolicy: OnFailure
          serviceAccountName: reporter
          containers:
          - name: report
            image: shop/report:3
            command: [report]
            args: [--weekly, '7']
            env:
            - {name: MODE, value: full}
            - {name: KEY, valueFrom: {secretKeyRef: {name: k, key: v}}}
---
kind: Service
---
kind: List
items:
- kind: CronJob
  metadata: {name: tick}
  spec:
    schedule: CRON_TZ=Asia/Tokyo */5 * * * *
    concurrencyPolicy: Replace
    suspend: true
    jobTemplate: {spec: {template: {spec: {containers: [{name: a, command: [tick]}]}}}}
",
    );
    assert_eq!(
        lines(&import),
        [
            "report: 0 6 * * 1 (both days) Europe/Paris, missed once, overlap skip: [\"report\", \"--weekly\", \"7\"]",
            "tick: */5 * * * * (both days) Asia/Tokyo, missed once, overlap cancel, paused: [\"tick\"]"
        ]
    );
    assert_eq!(import.schedules[0].policy.catch_up_window, Span::from_secs(300));
    assert_eq!(
        notes(&import),
        [
            "CronJob report.jobTemplate.spec: backoffLimit is not carried over",
            "CronJob report.jobTemplate.spec.template.spec: serviceAccountName is not carried over",
            "CronJob report: the image shop/report:3 is not carried over: the command runs on the worker itself",
            "CronJob report: the value of KEY comes from elsewhere; set it by hand",
            "document: Service is no CronJob; ignored",
        ]
    );
}

#[test]
fn jobs_of_dkron_are_read() {
    let import = dkron(
        r#"[
        {"name": "hello", "schedule": "0 30 2 * * *", "timezone": "Europe/Madrid", "concurrency": "forbid",
         "starts_at": "2026-01-01T00:00:00Z", "expires_at": "2027-01-01T00:00:00Z", "retries": 3, "success_count": 9,
         "executor": "shell", "executor_config": {"command": "echo hi", "shell": "true", "env": "A=1,B=2"}},
        {"name": "ping", "schedule": "@every 10s", "executor": "http", "tags": {"role": "web:1"},
         "executor_config": {"method": "POST", "url": "http://example.org/", "body": "{}", "expectCode": "200"}},
        {"name": "child", "schedule": "@manually", "executor": "shell", "executor_config": {}}]"#,
    );
    assert_eq!(
        lines(&import),
        [
            "hello: 0 30 2 * * * (both days) Europe/Madrid, missed skip, overlap skip: sh \"echo hi\"",
            "ping: @every 10s UTC, missed skip, overlap allow: POST http://example.org/"
        ]
    );
    let table = &import.schedules[0].timetable;
    assert_eq!(table.starts_at, Timestamp(1_767_225_600_000_000));
    assert_eq!(table.ends_at, Some(Timestamp(1_798_761_600_000_000)));
    assert_eq!(
        notes(&import),
        [
            "job hello: retries is not carried over",
            "job ping.executor_config: expectCode is not carried over",
            "job ping: tags is not carried over",
            "job child: left out: it only runs by hand; submit a job"
        ]
    );
}

#[test]
fn jobs_of_xxl_job_number_their_days_from_sunday() {
    let import = xxl_job(
        r#"[
        {"id": 1, "jobGroup": 1, "jobDesc": "settle", "scheduleType": "CRON", "scheduleConf": "0 0 3 ? * 2-6",
         "misfireStrategy": "FIRE_ONCE_NOW", "executorHandler": "settleHandler", "executorParam": "all",
         "executorBlockStrategy": "SERIAL_EXECUTION", "executorTimeout": 0, "executorFailRetryCount": 2,
         "glueType": "BEAN", "triggerStatus": 1},
        {"id": 2, "jobDesc": "poll", "scheduleType": "FIX_RATE", "scheduleConf": "30", "executorHandler": "poll",
         "executorBlockStrategy": "COVER_EARLY", "glueType": "GLUE_SHELL", "triggerStatus": 0},
        {"id": 3, "jobDesc": "once", "scheduleType": "CRON", "scheduleConf": "0 0 0 1 1 ? 2027"},
        {"id": 4, "jobDesc": "ever", "scheduleType": "CRON", "scheduleConf": "0 0 0 1 1 ? *", "executorHandler": "e"},
        {"id": 5, "jobDesc": "hand", "scheduleType": "NONE"}]"#,
        "Asia/Shanghai",
    );
    assert_eq!(
        lines(&import),
        [
            "settle: 0 0 3 ? * 2-6 Asia/Shanghai, missed once, overlap queue: settleHandler(all)",
            "poll: @every 30s Asia/Shanghai, missed skip, overlap cancel, paused: poll()",
            "ever: 0 0 0 1 1 ? Asia/Shanghai, missed skip, overlap queue: e()"
        ]
    );
    assert_eq!(import.schedules[0].timetable.rule.describe(), "at 03:00 on Monday to Friday");
    assert_eq!(
        notes(&import),
        [
            "job 1 settle: executorFailRetryCount is not carried over",
            "job 2 poll: its code is kept in the admin's database; submit it as a command",
            "job 3 once: left out: the year 2027 is not part of an expression here; give the schedule a start and an end",
            "job 5 hand: left out: it only runs by hand; submit a job"
        ]
    );
}

#[test]
fn entries_of_celery_beat_are_read() {
    let import = celery(
        r#"{"clean": {"task": "app.clean", "schedule": 90.5},
        "report": {"task": "app.report", "schedule": {"minute": "30", "hour": "7, 19", "day_of_week": "mon-fri"},
                   "args": [1], "kwargs": {"full": true}, "options": {"queue": "slow"}},
        "sun": {"task": "app.sun", "schedule": ["sunset"]},
        "text": {"task": "app.text", "schedule": "0 0 13 * 5", "enabled": false}}"#,
        "UTC",
    );
    assert_eq!(
        lines(&import),
        [
            "clean: @every 90500ms (both days) UTC, missed once, overlap allow: app.clean({\"args\":[],\"kwargs\":{}})",
            "report: 30 7,19 * * mon-fri (both days) UTC, missed once, overlap allow: app.report({\"args\":[1],\"kwargs\":{\"full\":true}})",
            "text: 0 0 13 * 5 (both days) UTC, missed once, overlap allow, paused: app.text({\"args\":[],\"kwargs\":{}})"
        ]
    );
    assert_eq!(
        notes(&import),
        [
            "report: options is not carried over",
            "sun: left out: the schedule is neither seconds, nor an expression, nor a crontab"
        ]
    );
}

#[test]
fn nothing_makes_a_reader_panic() {
    let texts = [
        "",
        "\u{0}",
        "[",
        "{}",
        "[[]]",
        "null",
        "42",
        "= =",
        "@",
        "@every",
        "* * * * *",
        "%",
        "\\",
        "a: [",
        "kind: CronJob",
        "kind: CronJob\nspec: 7",
    ];
    for text in texts {
        for has_users in [false, true] {
            assert_eq!(crontab(text, Crontab { has_users, timezone: "UTC" }).schedules, vec![]);
        }
        for import in [kubernetes(text), dkron(text), xxl_job(text, "UTC"), celery(text, "UTC")] {
            assert_eq!(import.schedules, vec![], "{text}");
        }
    }
}
