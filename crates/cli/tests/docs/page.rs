//! Reading a page, and comparing what it says with what is printed.

/// Something to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Write a file.
    File { name: String, text: String },
    /// Stop what runs in other terminals.
    Interrupt,
    /// Start something in another terminal.
    Background { line: usize, command: String },
    /// Run a command.
    Step(Step),
}

/// A command and what is said of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) command: String,
    pub(crate) exits: i32,
    pub(crate) expected: Option<Vec<String>>,
}

/// A fenced block: what stands behind the fence, the first line's number, the lines.
pub(crate) struct Block<'a> {
    pub(crate) info: &'a str,
    pub(crate) line: usize,
    pub(crate) lines: Vec<&'a str>,
}

/// Every fenced block of a page.
pub(crate) fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(info), None) => open = Some(Block { info, line: index + 2, lines: Vec::new() }),
            (None, Some(mut block)) => {
                block.lines.push(line);
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}

/// What a page asks to do, in its order.
pub(crate) fn read(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for block in blocks(text) {
        match block.info.split_once(' ').unwrap_or((block.info, "")) {
            ("console", "") => pieces.extend(steps(&block).into_iter().map(Piece::Step)),
            ("console", "interrupt") => {
                pieces.push(Piece::Interrupt);
                pieces.extend(steps(&block).into_iter().map(Piece::Step));
            }
            ("console", "background") => {
                let background =
                    |step: Step| Piece::Background { line: step.line, command: step.command };
                pieces.extend(steps(&block).into_iter().map(background));
            }
            ("console", "root") => {}
            ("console", other) => panic!("line {}: a console can't be `{other}`", block.line),
            (_, "") => {}
            (_, name) => pieces
                .push(Piece::File { name: name.to_owned(), text: block.lines.join("\n") + "\n" }),
        }
    }
    pieces
}

fn steps(block: &Block<'_>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (offset, line) in block.lines.iter().enumerate() {
        if let Some(command) = line.strip_prefix("$ ") {
            let line = block.line + offset;
            steps.push(Step {
                line,
                command: command.to_owned(),
                exits: exits(command),
                expected: None,
            });
            continue;
        }
        let last = steps.last_mut().expect("output comes after a command");
        match line.strip_prefix("> ") {
            Some(more) if last.expected.is_none() && last.command.ends_with('\\') => {
                last.command = format!("{}\n{more}", last.command);
                last.exits = exits(more);
            }
            _ => last.expected.get_or_insert_default().push((*line).to_owned()),
        }
    }
    steps
}

fn exits(command: &str) -> i32 {
    command.rsplit_once("# exits ").map_or(0, |(_, code)| code.parse().expect("an exit code"))
}

/// Whether the output is what the page says.
pub(crate) fn fits(expected: &[String], output: &str) -> bool {
    let narrow = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected: Vec<String> = expected.iter().map(|line| narrow(line)).collect();
    let output: Vec<String> = output.lines().map(narrow).collect();
    lines_fit(&expected, &output)
}

fn lines_fit(expected: &[String], output: &[String]) -> bool {
    match expected.split_first() {
        None => output.is_empty(),
        Some((any, rest)) if any == "..." => {
            (0..=output.len()).any(|skipped| lines_fit(rest, &output[skipped..]))
        }
        Some((line, rest)) => output
            .split_first()
            .is_some_and(|(first, others)| line_fits(line, first) && lines_fit(rest, others)),
    }
}

fn line_fits(expected: &str, line: &str) -> bool {
    let Some((start, rest)) = expected.split_once("...") else { return expected == line };
    let Some(left) = line.strip_prefix(start) else { return false };
    let ends = left.char_indices().map(|(at, _)| at).chain([left.len()]);
    ends.into_iter().any(|at| line_fits(rest, &left[at..]))
}

/// Lines that show commands of rota where nothing runs them: outside of consoles, and in consoles of pages that aren't run.
pub(crate) fn commands_outside_of_consoles(text: &str, run: bool) -> Vec<(usize, String)> {
    let unread = |block: &Block<'_>| block.info.split(' ').next() != Some("console") || !run;
    let shows = |line: &str| {
        let line = line.trim_start();
        line.strip_prefix("$ ").unwrap_or(line).starts_with("rota ")
    };
    let of_block = |block: Block<'_>| {
        let numbered = block.lines.into_iter().enumerate();
        let shown = numbered.filter(|(_, line)| shows(line));
        shown.map(|(offset, line)| (block.line + offset, line.to_owned())).collect::<Vec<_>>()
    };
    let fenced = blocks(text).into_iter().filter(unread).flat_map(of_block);
    let indented =
        text.lines().enumerate().filter(|(_, line)| line.starts_with("    ") && shows(line));
    let indented = indented.map(|(index, line)| (index + 1, line.to_owned()));
    let mut found: Vec<(usize, String)> = fenced.chain(indented).collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn dots_stand_for_text_and_for_lines() {
    let says = |expected: &str, output: &str| {
        let expected: Vec<String> = expected.lines().map(str::to_owned).collect();
        fits(&expected, output)
    };
    assert!(says("a ... c\n...\nend", "a  b   c\n1\n2\nend\n"));
    assert!(says("...", "") && says("a...", "a") && !says("a ...", "b") && !says("a", "a\nb"));
}

#[test]
fn commands_have_exit_codes_output_and_further_lines() {
    let page =
        "```console\n$ one \\\n> two # exits 3\nout\n$ three\n```\n```toml a.toml\nx = 1\n```\n";
    let step = |line, command: &str, exits, expected| {
        Piece::Step(Step { line, command: command.to_owned(), exits, expected })
    };
    let wanted = vec![
        step(2, "one \\\ntwo # exits 3", 3, Some(vec!["out".to_owned()])),
        step(5, "three", 0, None),
        Piece::File { name: "a.toml".to_owned(), text: "x = 1\n".to_owned() },
    ];
    assert_eq!(read(page), wanted);
}

#[test]
fn commands_that_nobody_runs_are_found() {
    let page = "```console\n$ rota ps\n```\n```sh\nrota ls\n```\n\n    rota x\n";
    let line = |number, text: &str| (number, text.to_owned());
    assert_eq!(
        commands_outside_of_consoles(page, true),
        vec![line(5, "rota ls"), line(8, "    rota x")]
    );
    assert_eq!(commands_outside_of_consoles(page, false).len(), 3);
}
