//! Output: what is kept, what is marked as dropped, reading along.

use std::fs;

use rota_wire::worker::{OutputChunk, OutputRequest, OutputStream, ReadOutput, output_request};

use super::fake::{OutputLink, id, pair, shell, stdout, within};

fn read(job: u64) -> ReadOutput {
    ReadOutput { attempt: Some(id(job)), ..ReadOutput::default() }
}

async fn ask(link: &OutputLink, request: u64, read: ReadOutput) {
    let kind = Some(output_request::Kind::Read(read));
    link.requests.send(Ok(OutputRequest { id: request, kind })).await.expect("open");
}

async fn next(link: &mut OutputLink) -> OutputChunk {
    within(link.chunks.message()).await.expect("the stream is whole").expect("and open")
}

/// Everything up to the end of a request, its error, and the bytes that were said to be skipped.
async fn all(link: &mut OutputLink, request: u64) -> (Vec<u8>, String, u64) {
    let (mut data, mut skipped) = (Vec::new(), 0);
    loop {
        let chunk = next(link).await;
        assert_eq!(chunk.id, request);
        data.extend(chunk.data);
        skipped += chunk.skipped;
        if chunk.end {
            return (data, chunk.error, skipped);
        }
    }
}

#[tokio::test]
async fn both_streams_are_captured_apart() {
    let (mut server, _worker, mut session) = pair(|_| {}).await;
    let report = session.run(1, &["sh", "-c", "echo out; echo err >&2"]).await;
    let detail = report.detail.clone().expect("there");
    assert_eq!(stdout(&report), "out\n");
    assert_eq!((detail.stderr_tail.as_slice(), detail.stderr_bytes), (b"err\n".as_slice(), 4));
    let mut link = server.output().await;
    assert_eq!(link.node, "7");
    ask(&link, 1, read(1)).await;
    assert_eq!(all(&mut link, 1).await, (b"out\n".to_vec(), String::new(), 0));
    ask(&link, 2, ReadOutput { stream: OutputStream::Stderr.into(), ..read(1) }).await;
    assert_eq!(all(&mut link, 2).await, (b"err\n".to_vec(), String::new(), 0));
    ask(&link, 3, ReadOutput { tail_bytes: Some(3), ..read(1) }).await;
    assert_eq!(all(&mut link, 3).await, (b"ut\n".to_vec(), String::new(), 0));
    ask(&link, 4, ReadOutput { offset: 99, ..read(1) }).await;
    assert_eq!(all(&mut link, 4).await, (vec![], String::new(), 0));
    ask(&link, 5, read(9)).await;
    let unknown = "this worker has no output of 9.3#2 (any more)".to_owned();
    assert_eq!(all(&mut link, 5).await, (vec![], unknown, 0));
}

#[tokio::test]
async fn too_much_output_loses_its_middle_and_says_how_much() {
    let (mut server, _worker, mut session) = pair(|config| {
        (config.output.head_bytes, config.output.tail_bytes) = (10_000, 20_000);
    })
    .await;
    let mut link = server.output().await;
    let text: String = (0..40_000).map(|line| format!("{line:09}\n")).collect();
    for (job, lines) in [(1, 2_999), (2, 3_000), (3, 3_001), (4, 40_000)] {
        let script = format!("seq -f %09.0f 0 {}", lines - 1);
        let report = session.run(job, &["sh", "-c", &script]).await;
        let whole = text.get(..lines * 10).expect("in range");
        let dropped = whole.len().saturating_sub(30_000);
        let detail = report.detail.expect("there");
        assert_eq!(detail.stdout_bytes, whole.len() as u64);
        assert_eq!(detail.stdout_tail, whole.as_bytes()[whole.len() - 4_096..]);
        let note = format!(
            "stdout: {dropped} of {} bytes dropped between the first 10000 and the last 20000",
            whole.len()
        );
        let notes: Vec<String> = (dropped > 0).then_some(note).into_iter().collect();
        assert_eq!(detail.notes, notes);
        ask(&link, job, read(job)).await;
        let (data, error, skipped) = all(&mut link, job).await;
        let kept = match dropped {
            0 => whole.to_owned(),
            _ => format!("{}{}", &whole[..10_000], &whole[whole.len() - 20_000..]),
        };
        assert_eq!((String::from_utf8(data).expect("text"), error), (kept, String::new()));
        assert_eq!(skipped, dropped as u64);
    }
}

#[tokio::test]
async fn a_reader_follows_until_the_attempt_is_over() {
    let (mut server, worker, mut session) = pair(|_| {}).await;
    let mut link = server.output().await;
    let go = worker.dir.path().join("go");
    let wait = format!("until [ -e {0} ]; do sleep 0.01; done; rm {0}", go.display());
    session.start(vec![shell(1, &format!("echo one; {wait}; echo two; {wait}"))]).await;
    session.running(1).await;
    ask(&link, 1, ReadOutput { follow: true, ..read(1) }).await;
    assert_eq!(next(&mut link).await.data, b"one\n");
    ask(&link, 2, read(1)).await;
    assert_eq!(all(&mut link, 2).await.0, b"one\n", "one that does not follow ends");
    fs::write(&go, "").expect("writable");
    let chunk = next(&mut link).await;
    assert_eq!((chunk.data.as_slice(), chunk.offset), (b"two\n".as_slice(), 4));
    ask(&link, 3, ReadOutput { follow: true, offset: 4, ..read(1) }).await;
    assert_eq!(next(&mut link).await.data, b"two\n");
    let cancel = OutputRequest { id: 3, kind: Some(output_request::Kind::Cancel(true)) };
    link.requests.send(Ok(cancel)).await.expect("open");
    super::fake::eventually("the first wait is over", || !go.exists()).await;
    fs::write(&go, "").expect("writable");
    let end = OutputChunk { id: 1, offset: 8, end: true, ..OutputChunk::default() };
    assert_eq!(next(&mut link).await, end, "and nothing for the reader that went");
    assert_eq!(session.report(1).await.end, super::fake::succeeded());
}

#[tokio::test]
async fn little_output_makes_no_files_and_old_files_go() {
    let (_server, worker, mut session) = pair(|config| config.output.total_bytes = 32 << 10).await;
    let files = || {
        let spool = worker.dir.path().join("output/1048576+1048576");
        let found = fs::read_dir(spool).expect("the spool");
        let mut names: Vec<_> = found
            .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    };
    session.run(1, &["sh", "-c", "head -c 4096 /dev/zero"]).await;
    assert_eq!(files(), Vec::<String>::new());
    session.run(2, &["sh", "-c", "head -c 4097 /dev/zero"]).await;
    assert_eq!(files(), ["2.3.2.stdout"]);
    session.run(3, &["sh", "-c", "head -c 10000 /dev/zero >&2"]).await;
    session.run(4, &["sh", "-c", "head -c 10000 /dev/zero"]).await;
    assert_eq!(files(), ["2.3.2.stdout", "3.3.2.stderr", "4.3.2.stdout"]);
    session.run(5, &["sh", "-c", "head -c 10000 /dev/zero"]).await;
    assert_eq!(files(), ["4.3.2.stdout", "5.3.2.stdout"]);
}
