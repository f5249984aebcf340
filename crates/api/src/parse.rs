//! Reads job files and request bodies, reporting as many mistakes at once as can be found.

use rota_types::limits::SUBMIT_JOBS_MAX;

use crate::decode::{self, Decoder};
use crate::job_file::{JobFile, Mistake};
use crate::tree::{self, Format, Node, Place, Value};
use crate::validate::{self, Origin};

/// Mistakes that are told of one body: whoever made this many made most of them over and over.
const MISTAKES_MAX: usize = 100;

/// Reads and validates a job file that holds one job.
///
/// # Errors
/// Everything that is wrong with it, in the order of the text. `each_line` is allowed: the caller reads that file before submitting.
pub fn parse_job_file(
    text: &str,
    format: Format,
    file_name: Option<&str>,
) -> Result<JobFile, Vec<Mistake>> {
    let mut jobs = parse_job_files(text, format, file_name)?;
    match (jobs.pop(), jobs.is_empty()) {
        (Some(job), true) => Ok(job),
        (_, _) => Err(vec![Mistake {
            file: file_name.map(str::to_owned),
            ..Mistake::new("/jobs", "one job is expected here, not several", "")
        }]),
    }
}

/// Reads and validates a job file: one job, or several below `[[jobs]]`.
///
/// # Errors
/// As [`parse_job_file`].
pub fn parse_job_files(
    text: &str,
    format: Format,
    file_name: Option<&str>,
) -> Result<Vec<JobFile>, Vec<Mistake>> {
    let named = |mut mistakes: Vec<Mistake>| {
        mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        for mistake in &mut mistakes {
            mistake.file = file_name.map(str::to_owned);
        }
        mistakes
    };
    let root = tree::parse(text, format).map_err(named)?;
    one_or_several(&root, Origin::File).map_err(named)
}

/// Reads and validates the body of `POST /v1/jobs`: one job, or `{"jobs": […]}`.
///
/// # Errors
/// Everything that is wrong. The pointer is empty, and line and column are set, if it isn't JSON at all.
pub fn parse_submit(body: &[u8]) -> Result<Vec<JobFile>, Vec<Mistake>> {
    one_or_several(&tree::from_json_slice(body)?, Origin::Request)
}

/// One job, or several below the key `jobs`.
fn one_or_several(root: &Node, origin: Origin) -> Result<Vec<JobFile>, Vec<Mistake>> {
    let Value::Table(entries) = &root.value else {
        return read(root, origin).map(|job| vec![job]);
    };
    let Some(jobs) = entries.iter().find(|entry| entry.key == "jobs") else {
        return read(root, origin).map(|job| vec![job]);
    };
    let at = |place: Place, mistake: Mistake| {
        let some = |number: u32| (number > 0).then_some(number);
        vec![Mistake { line: some(place.line), column: some(place.column), ..mistake }]
    };
    if let Some(other) = entries.iter().find(|entry| entry.key != "jobs") {
        let message = format!("unknown key \"{}\" beside \"jobs\"", other.key);
        let hint = "give one job, or only \"jobs\"";
        return Err(at(other.key_place, Mistake::new(format!("/{}", other.key), message, hint)));
    }
    let Value::List(items) = &jobs.node.value else {
        return Err(at(jobs.node.place, Mistake::new("/jobs", "expected a list of jobs", "")));
    };
    gather(items.iter().map(|item| read(item, origin)), "/jobs")
}

/// Reads and validates newline-delimited JSON: one job per line, empty lines are skipped.
///
/// # Errors
/// Everything that is wrong, with pointers that begin with the number of the job, from 0.
pub fn parse_ndjson(body: &[u8]) -> Result<Vec<JobFile>, Vec<Mistake>> {
    let full = |line: &&[u8]| !line.iter().all(u8::is_ascii_whitespace);
    // One more than may be there shows that there are too many; what is behind it is not read.
    let lines = body.split(|byte| *byte == b'\n').filter(full).take(SUBMIT_JOBS_MAX + 1);
    gather(lines.map(|line| read(&tree::from_json_slice(line)?, Origin::Request)), "")
}

/// Collects jobs, or the mistakes of all of them below `prefix`.
fn gather(
    jobs: impl Iterator<Item = Result<JobFile, Vec<Mistake>>>,
    prefix: &str,
) -> Result<Vec<JobFile>, Vec<Mistake>> {
    let (mut good, mut wrong) = (Vec::new(), Vec::new());
    for (index, job) in jobs.enumerate() {
        match job {
            Ok(job) => good.push(job),
            Err(mistakes) => wrong.extend(mistakes.into_iter().map(|mistake| Mistake {
                pointer: format!("{prefix}/{index}{}", mistake.pointer),
                ..mistake
            })),
        }
        if wrong.len() >= MISTAKES_MAX {
            wrong.truncate(MISTAKES_MAX);
            return Err(wrong);
        }
    }
    wrong.extend(validate::job_count(
        good.len() + usize::from(good.is_empty() && !wrong.is_empty()),
        prefix,
    ));
    if wrong.is_empty() { Ok(good) } else { Err(wrong) }
}

fn read(root: &Node, origin: Origin) -> Result<JobFile, Vec<Mistake>> {
    let mut decoder = Decoder::default();
    let job = decode::job_file(root, &mut decoder);
    let mut mistakes = decoder.mistakes;
    // Fields that could not be read are reported as such, not as missing as well.
    let fresh = |mistake: &Mistake, mistakes: &[Mistake]| {
        let below = |known: &Mistake| {
            let rest = known.pointer.strip_prefix(&mistake.pointer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        !mistakes.iter().any(below)
    };
    for mut mistake in validate::job(&job, origin) {
        if !fresh(&mistake, &mistakes) {
            continue;
        }
        let place = root.locate(&mistake.pointer);
        mistake.line = (place.line > 0).then_some(place.line);
        mistake.column = (place.column > 0).then_some(place.column);
        mistakes.push(mistake);
    }
    if mistakes.is_empty() { Ok(job) } else { Err(mistakes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "{\"task\":[{\"noop\":true}]}\n";

    #[test]
    fn as_many_lines_are_read_as_may_be_and_one_more() {
        let read = |lines: usize| {
            let rest = "garbage\n".repeat(10);
            let behind = if lines > SUBMIT_JOBS_MAX { &rest } else { "" };
            parse_ndjson(format!("{}{behind}", JOB.repeat(lines)).as_bytes())
        };
        assert_eq!(read(SUBMIT_JOBS_MAX - 1).unwrap().len(), SUBMIT_JOBS_MAX - 1);
        assert_eq!(read(SUBMIT_JOBS_MAX).unwrap().len(), SUBMIT_JOBS_MAX);
        // What is behind the first line too many is not even looked at.
        let mistakes = read(SUBMIT_JOBS_MAX + 1).unwrap_err();
        let [only] = mistakes.as_slice() else { panic!("{mistakes:?}") };
        assert!(only.message.contains("1001 jobs"), "{only:?}");
    }

    #[test]
    fn of_many_mistakes_the_first_are_told() {
        let told = |lines: usize| parse_ndjson("x\n".repeat(lines).as_bytes()).unwrap_err().len();
        assert_eq!(told(MISTAKES_MAX - 1), MISTAKES_MAX - 1);
        assert_eq!(told(MISTAKES_MAX), MISTAKES_MAX);
        assert_eq!(told(MISTAKES_MAX + 1), MISTAKES_MAX);
    }
}
