//! The files of a report.

use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::PathBuf,
};
use wayfarer::bench::rate::{Report, report::Format};

/// A file that takes the place of another one once it is complete.
struct ReportFile {
    path: PathBuf,
    format: Format,
    /// Where it is until then.
    part: PathBuf,
    file: File,
}

/// The files of a report. What they are to replace stays as it is until the report is complete.
pub(super) struct ReportFiles(Vec<ReportFile>);

impl ReportFiles {
    /// Makes the files, so that a path of no use is known before anything is measured.
    ///
    /// # Errors
    /// Says which file cannot be made, and why.
    pub(super) fn new(files: &[(PathBuf, Format)]) -> Result<Self, String> {
        let mut made = Self(Vec::new());
        for (path, format) in files {
            if made.0.iter().any(|other| other.path == *path) {
                return Err(format!("{}: is in the list twice", path.display()));
            }
            let mut part = path.clone().into_os_string();
            part.push(".part");
            let part = PathBuf::from(part);
            let file = match path.is_dir() {
                true => Err(io::ErrorKind::IsADirectory.into()),
                false => File::create(&part),
            };
            let file = file.map_err(|why| format!("{}: {why}", path.display()))?;
            made.0.push(ReportFile { path: path.clone(), format: *format, part, file });
        }
        Ok(made)
    }

    /// Writes the report to all files, also if one of them fails. A report without rows and sequence numbers
    /// replaces no other one. Returns what failed.
    pub(super) fn write(self, report: &Report) -> Vec<String> {
        let is_empty = report.rows.is_empty() && report.numbers.is_empty();
        let write = |target: &ReportFile| -> io::Result<()> {
            if is_empty && target.path.exists() {
                return Ok(());
            }
            target.format.write(report, BufWriter::new(&target.file))?;
            fs::rename(&target.part, &target.path)
        };
        let failure =
            |target: &ReportFile| write(target).err().map(|why| format!("{}: {why}", target.path.display()));
        self.0.iter().filter_map(failure).collect()
    }
}

impl Drop for ReportFiles {
    fn drop(&mut self) {
        for target in &self.0 {
            // It is gone if the report is complete.
            let _ = fs::remove_file(&target.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use wayfarer::bench::rate::LastNumber;

    fn report(numbers: Vec<LastNumber>) -> Report {
        Report {
            program: "wayfarer 0".to_owned(),
            started: 0,
            arguments: vec![],
            rows: vec![],
            numbers,
            error: Some("no frame came back".to_owned()),
            interrupted: false,
        }
    }

    fn files(paths: &[&Path]) -> Result<ReportFiles, String> {
        let files: Vec<_> =
            paths.iter().map(|path| (path.to_path_buf(), Format::of(path).unwrap())).collect();
        ReportFiles::new(&files)
    }

    /// Returns the names in a folder, in their order.
    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn report_takes_the_place_of_another_one_only_if_it_has_something() {
        let folder = tempfile::tempdir().unwrap();
        let [json, csv] = ["run.json", "run.csv"].map(|name| folder.path().join(name));
        fs::write(&json, "of yesterday").unwrap();
        let made = files(&[&json, &csv]).unwrap();
        assert_eq!(fs::read_to_string(&json).unwrap(), "of yesterday");
        assert_eq!(made.write(&report(vec![])), Vec::<String>::new());
        assert_eq!(fs::read_to_string(&json).unwrap(), "of yesterday");
        assert!(fs::read_to_string(&csv).unwrap().starts_with("test,"));
        let numbers = vec![LastNumber { tunnel: "alice".to_owned(), number: 4711, received: 7 }];
        assert_eq!(files(&[&json]).unwrap().write(&report(numbers)), Vec::<String>::new());
        assert!(fs::read_to_string(&json).unwrap().contains("4711"));
        assert_eq!(names(folder.path()), ["run.csv", "run.json"]);
    }

    #[test]
    fn paths_of_no_use_are_refused_at_once_and_one_failure_leaves_no_other_file_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("folder.html")).unwrap();
        for bad in ["folder.html", "nowhere/run.json", "run.csv"].map(path) {
            let why = files(&[&path("run.csv"), &bad]).err().unwrap();
            assert!(why.starts_with(&format!("{}: ", bad.display())), "{why}");
        }
        assert_eq!(names(folder.path()), ["folder.html"]);
        let made = files(&[&path("first.json"), &path("second.json")]).unwrap();
        fs::create_dir(path("first.json")).unwrap();
        let failed = made.write(&report(vec![LastNumber { tunnel: "a".to_owned(), number: 1, received: 0 }]));
        assert!(failed.len() == 1 && failed[0].contains("first.json: "), "{failed:?}");
        assert_eq!(names(folder.path()), ["first.json", "folder.html", "second.json"]);
    }
}
