//! A headless Chromium, spoken to in its DevTools protocol over two pipes, so that nothing listens.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};

use super::{DEADLINE, wait_for};

/// What makes every page remember what its policy forbade.
const REMEMBER_VIOLATIONS: &str = "window.violations = []; document.addEventListener(\
    'securitypolicyviolation', (event) => window.violations.push(event.violatedDirective));";

/// A browser with one page.
pub struct Browser {
    child: Child,
    commands: Sender,
    answers: BufReader<Receiver>,
    numbered: u64,
    session: Option<String>,
    _dir: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// One that shows nothing yet.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        for name in ["commands", "answers"] {
            let made = Command::new("mkfifo").arg(dir.path().join(name)).status();
            assert!(made.expect("mkfifo runs").success());
        }
        let both = || OpenOptions::new().read_write(true).to_owned();
        let commands = both().open_sender(dir.path().join("commands")).expect("opened");
        let answers = both().open_receiver(dir.path().join("answers")).expect("opened");
        let child = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<commands 4>answers", "sh"])
            .args(["--headless=new", "--remote-debugging-pipe", "--user-data-dir=profile"])
            // Root has no sandbox of its own; the page is ours.
            .args(["--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium is installed (apt install chromium)");
        let answers = BufReader::new(answers);
        let mut browser = Self { child, commands, answers, numbered: 0, session: None, _dir: dir };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        assert!(browser.session.is_some(), "{attached}");
        browser.call("Page.enable", json!({})).await;
        let script = json!({"source": REMEMBER_VIOLATIONS});
        browser.call("Page.addScriptToEvaluateOnNewDocument", script).await;
        browser
    }

    /// Calls a method and returns its result.
    pub async fn call(&mut self, method: &str, params: Json) -> Json {
        self.numbered += 1;
        let mut command = json!({"id": self.numbered, "method": method, "params": params});
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        let exchange = async {
            self.commands.write_all(command.to_string().as_bytes()).await.expect("sent");
            self.commands.write_all(&[0]).await.expect("sent");
            loop {
                let mut frame = Vec::new();
                self.answers.read_until(0, &mut frame).await.expect("read");
                frame.pop();
                let answer: Json = serde_json::from_slice(&frame).expect("JSON");
                // What is not an answer is an event.
                if answer["id"] == self.numbered {
                    assert!(answer["error"].is_null(), "{method}: {answer}");
                    return answer["result"].clone();
                }
            }
        };
        tokio::time::timeout(DEADLINE * 3, exchange).await.expect("the browser answers")
    }

    /// Opens a page.
    pub async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
    }

    /// The value of an expression on the page.
    pub async fn value(&mut self, expression: &str) -> Json {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let found = self.call("Runtime.evaluate", params).await;
        assert!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        found["result"]["value"].clone()
    }

    /// The text of what a selector finds first, as people read it.
    pub async fn text(&mut self, selector: &str) -> String {
        let found = self.value(&format!("document.querySelector('{selector}')?.innerText")).await;
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an element's text holds words.
    pub async fn until(&mut self, selector: &str, words: &str) {
        let what = format!("{selector} says {words}");
        wait_for(&what, async || self.text(selector).await.contains(words)).await;
    }

    /// The size of the window, and whether it prefers dark.
    pub async fn view(&mut self, width: u32, height: u32, scheme: &str) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// Presses the tab key, and says which element has the focus then.
    pub async fn tab(&mut self) -> String {
        for kind in ["rawKeyDown", "keyUp"] {
            let key =
                json!({"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9});
            self.call("Input.dispatchKeyEvent", key).await;
        }
        let focused = self.value("document.activeElement.id || document.activeElement.className");
        focused.await.as_str().unwrap_or_default().to_owned()
    }

    /// Keeps a picture of the whole page for people to look at.
    pub async fn picture(&mut self, name: &str) {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let taken = self.call("Page.captureScreenshot", params).await;
        let encoded = taken["data"].as_str().expect("a picture");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        let file = std::fs::File::create(path).expect("made");
        let mut decode = Command::new("base64");
        let decode = decode.arg("--decode").stdin(Stdio::piped()).stdout(file).spawn();
        let mut decode = decode.expect("base64 runs");
        let mut stdin = decode.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut stdin, encoded.as_bytes()).expect("decoded");
        drop(stdin);
        assert!(decode.wait().expect("reaped").success());
    }
}
