//! `cargo xtask contract`: what others make of `docs/openapi.json`. A validator, two generators whose clients chat with
//! a real server, and a fuzzer that holds answers against the schemas.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use devdb::Postgres;
use reqwest::Client;
use serde_json::{Value, json};

use crate::{
    python::{self, done},
    run::{Ports, STARTING, development_settings, files_in, keys, start},
    workspace::{build, root},
};

const PORT: u16 = 26688;
/// Examples of each call, besides those at the limits of its schema.
const EXAMPLES: &str = "25";
/// Ends the session that the fuzzer has, so these come last.
const LOGOUTS: &str = "^/api/logout";

/// A person of the fuzzer's who makes thousands of calls is not to be slowed down.
const NO_LIMITS: [(&str, &str); 3] = [
    ("FECHATTER__HTTP__REQUESTS_PER_SECOND", "1000000"),
    ("FECHATTER__HTTP__BURST", "1000000"),
    ("FECHATTER__LIMITS__HASHES_PER_ADDRESS", "1000000"),
];

pub(crate) async fn run() -> Result<ExitCode> {
    let folder = root().join(".fechatter/contract");
    let tools = Tools::fetch(&folder)?;
    let document = root().join("docs/openapi.json");
    tools.validate(&document)?;
    let clients = [tools.generate_python(&document)?, tools.generate_typescript(&document)?];

    let ports = Ports::above(PORT);
    ports.check_free().await?;
    let [program, _] = build(&[], ["fechatter_server", "notify_server"])?;
    let postgres = Postgres::temporary()?;
    let url = postgres.url("fechatter");
    devdb::create_database_if_absent(&url).await?;
    let mut environment = ports.environment();
    environment.push(("DATABASE_URL".to_owned(), url));
    environment.extend(development_settings());
    environment.extend(NO_LIMITS.map(|(key, value)| (key.to_owned(), value.to_owned())));
    environment.push(files_in(&folder));
    environment.extend(keys(&program, &folder)?);
    let http = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
    let mut server = start(&program, &folder, ports.of_rest(), &environment)?;
    server.ready(&http, STARTING).await?;

    let address = ports.rest_url();
    for (mut client, language) in clients.into_iter().zip(["Python", "TypeScript"]) {
        done(client.arg(&address), &format!("the generated {language} client"))?;
        println!("The generated {language} client signs up, sends and reads a page.");
    }
    let token = sign_up(&http, &address).await?;
    tools.fuzz(&document, &address, &token, ["--exclude-path-regex", LOGOUTS])?;
    tools.fuzz(&document, &address, &token, ["--include-path-regex", LOGOUTS])?;
    server.check()?;
    drop(server);
    postgres.stop()?;
    Ok(ExitCode::SUCCESS)
}

/// The programs, of the versions that `tools/contract/clients` names.
struct Tools {
    folder: PathBuf,
    python: PathBuf,
    typescript: PathBuf,
}

impl Tools {
    fn fetch(folder: &Path) -> Result<Self> {
        let python = folder.join("python");
        let typescript = folder.join("typescript");
        fs::create_dir_all(&typescript)?;
        let requirements = clients().join("python/requirements.txt");
        python::install(&python, ["--requirement".as_ref(), requirements.as_os_str()])?;
        for file in fs::read_dir(clients().join("typescript"))? {
            let file = file?;
            fs::copy(file.path(), typescript.join(file.file_name()))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--silent", "--prefer-offline", "--no-audit", "--no-fund"]);
        done(npm.current_dir(&typescript), "npm ci")?;
        Ok(Self { folder: folder.to_owned(), python, typescript })
    }

    fn python(&self, program: &str) -> Command {
        let mut command = Command::new(self.python.join("bin").join(program));
        // Generators format with what is installed beside them.
        let own = self.python.join("bin").into_os_string();
        let rest = std::env::var_os("PATH").unwrap_or_default();
        command.env("PATH", [own, rest].join(std::ffi::OsStr::new(":")));
        command.current_dir(&self.folder);
        command
    }

    fn validate(&self, document: &Path) -> Result<()> {
        done(self.python("openapi-spec-validator").arg(document), "the validator")?;
        println!("docs/openapi.json is valid.");
        Ok(())
    }

    /// Returns the program that chats through the client.
    fn generate_python(&self, document: &Path) -> Result<Command> {
        let generated = self.folder.join("generated");
        let mut generator = self.python("openapi-python-client");
        generator.args(["generate", "--overwrite", "--fail-on-warning"]);
        generator.arg("--path").arg(document).arg("--output-path").arg(&generated);
        done(&mut generator, "openapi-python-client")?;
        let mut compile = self.python("python");
        done(compile.args(["-m", "compileall", "-q"]).arg(&generated), "Python's compiler")?;
        let mut chat = self.python("python");
        chat.arg(clients().join("python/chat.py")).env("PYTHONPATH", generated);
        Ok(chat)
    }

    /// Returns the program that chats through the client.
    fn generate_typescript(&self, document: &Path) -> Result<Command> {
        let npx = |program: &str| {
            let mut command = Command::new("npx");
            command.args(["--no-install", program]).current_dir(&self.typescript);
            command
        };
        let mut generator = npx("openapi-ts");
        generator.args(["--silent", "--output", "generated", "--client", "@hey-api/client-fetch"]);
        done(generator.arg("--input").arg(document), "openapi-ts")?;
        done(&mut npx("tsc"), "the TypeScript compiler")?;
        let mut chat = Command::new("node");
        chat.arg("out/chat.js").current_dir(&self.typescript);
        Ok(chat)
    }

    fn fuzz(&self, document: &Path, address: &str, token: &str, calls: [&str; 2]) -> Result<()> {
        let mut fuzzer = self.python("schemathesis");
        fuzzer.arg("--config-file").arg(clients().join("schemathesis.toml"));
        fuzzer.arg("run").arg(document).args(["--url", address, "--exclude-path", "/events"]);
        fuzzer.args(["--header", &format!("Authorization: Bearer {token}")]).args(calls);
        // One worker: CPython 3.11 counts the depth of `ast.parse` for all threads together, and fails now and then.
        fuzzer.args(["--max-examples", EXAMPLES, "--workers", "1", "--no-color"]);
        fuzzer.args(["--warnings", "off"]);
        let output = fuzzer.output().context("starting schemathesis")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "schemathesis found something:\n{said}");
        let count = said.lines().find(|line| line.contains("generated,")).unwrap_or_default();
        println!("schemathesis: {}", count.trim());
        Ok(())
    }
}

async fn sign_up(http: &Client, address: &str) -> Result<String> {
    let person = json!({
        "fullname": "Fuzzer", "email": "fuzzer@contract.test", "password": "correct horse battery",
        "workspace": "Contract",
    });
    let answer = http.post(format!("{address}/api/signup")).json(&person).send().await?;
    let answer: Value = answer.error_for_status()?.json().await?;
    answer["access_token"].as_str().map(ToOwned::to_owned).context("no access token")
}

fn clients() -> PathBuf {
    root().join("tools/contract/clients")
}
