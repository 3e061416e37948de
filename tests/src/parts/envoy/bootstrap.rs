//! The bootstrap template of `envoy-config/envoy.yaml`, filled in. Starts nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

use super::Settings;
use crate::parts::workspace;

/// Fills in the bootstrap template.
///
/// # Errors
/// When the template cannot be read or names something unknown.
pub fn render(settings: &Settings) -> Result<String> {
    let path = workspace().join("envoy-config/envoy.yaml");
    let template = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let (sections, values) = (sections(settings), values(settings)?);
    fill(&cut(&template, &sections)?, &values)
}

/// The optional sections that are wanted.
fn sections(settings: &Settings) -> Vec<&'static str> {
    let wanted = [
        ("break-glass", settings.break_glass.is_some()),
        ("cors", !settings.cors_origins.is_empty()),
        ("bytes", settings.charged.bytes),
        ("points", settings.charged.points),
        ("trace", settings.otlp.is_some()),
        ("otlp-tls", settings.otlp.is_some() && settings.tls.is_some()),
        ("otlp-identity", settings.otlp.is_some() && settings.tls.is_some()),
        ("edge-tls", settings.tls.is_some()),
        ("upstream-tls", settings.tls.is_some()),
        ("injected-pressure", settings.pressure_file.is_some()),
    ];
    wanted.into_iter().filter_map(|(name, wanted)| wanted.then_some(name)).collect()
}

fn values(settings: &Settings) -> Result<BTreeMap<&'static str, String>> {
    let limits = &settings.limits;
    let mut values = BTreeMap::from([
        ("CONNECTIONS_MAX", "50000".to_owned()),
        ("HEAP_BYTES_MAX", (1_u64 << 31).to_string()),
        ("XFF_TRUSTED_HOPS", "0".to_owned()),
        ("PER_ADDRESS_BURST", (2 * limits.per_address).to_string()),
        ("PER_ADDRESS_PER_SECOND", limits.per_address.to_string()),
        ("TRACE_SAMPLING_PERCENT", settings.trace_sampling_percent.to_string()),
        ("AUTHZ_TIMEOUT", settings.authz_timeout.to_owned()),
        ("AUTHZ_TRY_TIMEOUT", of_one_try(settings.authz_timeout)?),
        ("RATELIMIT_TIMEOUT", settings.ratelimit_timeout.to_owned()),
        ("RATELIMIT_TRY_TIMEOUT", of_one_try(settings.ratelimit_timeout)?),
        ("RATELIMIT_DENY_PERCENT", "100".to_owned()),
        ("BYPASS_CLASSES", settings.classes.bypass.clone()),
        ("DENY_CLASSES", settings.classes.deny.clone()),
        ("LOCAL_LIMIT_BURST", limits.local_limit.to_string()),
        ("LOCAL_LIMIT_PER_SECOND", limits.local_limit.to_string()),
        ("GATEWAY_REQUESTS_MAX", limits.gateway_requests_max.to_string()),
        ("ADMIN_PORT", settings.admin.port().to_string()),
        ("VERSION", env!("CARGO_PKG_VERSION").to_owned()),
        ("ACCESS_LOG_SUCCESS_PERCENT", limits.access_log_success_percent.to_string()),
        ("AUTHZ_ENDPOINTS", endpoints(&settings.authz)),
        ("RATELIMIT_ENDPOINTS", endpoints(&settings.ratelimit)),
        ("GATEWAY_ENDPOINTS", endpoints(&settings.gateway)),
        ("CORS_ORIGINS", origins(&settings.cors_origins)),
    ]);
    let mut address = |host: &'static str, port: &'static str, address: SocketAddr| {
        values.insert(host, address.ip().to_string());
        values.insert(port, address.port().to_string());
    };
    address("EDGE_ADDRESS", "EDGE_PORT", settings.edge);
    address("STATUS_ADDRESS", "STATUS_PORT", settings.status);
    if let Some(otlp) = settings.otlp {
        address("OTLP_HOST", "OTLP_PORT", otlp);
    }
    if let Some(tls) = &settings.tls {
        address("EDGE_TLS_ADDRESS", "EDGE_TLS_PORT", tls.edge);
    }
    if let Some(break_glass) = &settings.break_glass {
        address("BREAK_GLASS_ADDRESS", "BREAK_GLASS_PORT", break_glass.address);
        values.insert("BREAK_GLASS_CONNECTIONS_MAX", "1000".to_owned());
        let files = &break_glass.files;
        values.insert("BREAK_GLASS_CERT", files.certificate.display().to_string());
        values.insert("BREAK_GLASS_KEY", files.key.display().to_string());
        values.insert("BREAK_GLASS_CA", files.ca.display().to_string());
    }
    if let Some(tls) = &settings.tls {
        values.insert("SDS_DIRECTORY", tls.sds.display().to_string());
        values.insert("AUTHZ_SANS", names(&tls.authz));
        values.insert("RATELIMIT_SANS", names(&tls.ratelimit));
        values.insert("GATEWAY_SANS", names(&tls.gateway));
        values.insert("OTLP_SANS", names(&tls.otlp));
    }
    if let Some(file) = &settings.pressure_file {
        values.insert("PRESSURE_FILE", file.display().to_string());
    }
    Ok(values)
}

/// The one name that the certificate of a service must carry, a YAML flow sequence.
fn names(name: &str) -> String {
    let kind = if name.contains("://") { "URI" } else { "DNS" };
    format!("[{{san_type: {kind}, matcher: {{exact: \"{name}\"}}}}]")
}

/// Origins as alternatives of a regular expression.
fn origins(origins: &[String]) -> String {
    let pattern = |origin: &String| match origin.as_str() {
        "*" => ".*".to_owned(),
        origin => {
            let plain = ['.', '[', ']']
                .iter()
                .fold(origin.to_owned(), |text, sign| text.replace(*sign, &format!("\\{sign}")));
            plain.replace(r"://*\.", r"://[^/:@]+\.")
        }
    };
    origins.iter().map(pattern).collect::<Vec<_>>().join("|")
}

/// What one of two tries may take of a timeout such as `0.25s`, with room for what lies between them.
fn of_one_try(timeout: &str) -> Result<String> {
    let seconds = timeout.strip_suffix('s').and_then(|number| number.parse::<f64>().ok());
    let seconds = seconds.with_context(|| format!("{timeout} is no time in seconds"))?;
    Ok(format!("{:.3}s", seconds * 0.4))
}

/// The endpoints of a cluster, a YAML flow sequence.
fn endpoints(addresses: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = addresses.iter().map(endpoint).collect();
    format!("[{}]", endpoints.join(", "))
}

fn endpoint(at: &SocketAddr) -> String {
    let (host, port) = (at.ip(), at.port());
    format!(
        "{{endpoint: {{address: {{socket_address: {{address: \"{host}\", port_value: {port}}}}}}}}}"
    )
}

/// Leaves out the sections that are not wanted: from `# begin NAME` to `# end NAME`. One may stand
/// within another.
fn cut(template: &str, wanted: &[&str]) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    let mut open: Vec<&str> = Vec::new();
    for line in template.lines() {
        let comment = line.trim_start().strip_prefix("# ");
        if let Some(name) = comment.and_then(|comment| comment.strip_prefix("begin ")) {
            if open.contains(&name) {
                bail!("the section {name} of the bootstrap begins within itself");
            }
            open.push(name);
        } else if let Some(name) = comment.and_then(|comment| comment.strip_prefix("end ")) {
            if open.pop() != Some(name) {
                bail!("the section {name} of the bootstrap ends where it cannot");
            }
        } else if open.iter().all(|name| wanted.contains(name)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    match open.last() {
        Some(name) => bail!("the section {name} of the bootstrap does not end"),
        None => Ok(text),
    }
}

fn fill(template: &str, values: &BTreeMap<&str, String>) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    // In comments `${NAME}` speaks of placeholders and stays.
    for line in template.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').context("a placeholder without its end")?;
            let value = values.get(name).with_context(|| format!("unknown placeholder {name}"))?;
            text.push_str(before);
            text.push_str(value);
            rest = after;
        }
        text.push_str(rest);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_left_out_unless_wanted() {
        let template = "a\n  # begin x\nb\n  # end x\nc\n# begin y\nd\n# end y\n";
        for (wanted, expected) in [
            (&[][..], Some("a\nc\n")),
            (&["x"], Some("a\nb\nc\n")),
            (&["y", "x"], Some("a\nb\nc\nd\n")),
        ] {
            assert_eq!(cut(template, wanted).ok().as_deref(), expected, "{wanted:?}");
        }
        let nested = "# begin x\na\n# begin y\nb\n# end y\nc\n# end x\nd\n";
        for (wanted, expected) in [
            (&[][..], "d\n"),
            (&["y"], "d\n"),
            (&["x"], "a\nc\nd\n"),
            (&["x", "y"], "a\nb\nc\nd\n"),
        ] {
            assert_eq!(cut(nested, wanted).ok().as_deref(), Some(expected), "{wanted:?}");
        }
        for broken in [
            "# begin x\n",
            "# end x\n",
            "# begin x\n# end y\n",
            "# begin x\n# begin x\n# end x\n# end x\n",
        ] {
            assert!(cut(broken, &[]).is_err(), "{broken}");
        }
    }

    #[test]
    fn origins_are_a_regular_expression() {
        let all = ["https://a.example.com", "http://*.local:8080", "http://[::1]:80", "*"];
        let all = all.map(str::to_owned);
        let expected = r"https://a\.example\.com|http://[^/:@]+\.local:8080|http://\[::1\]:80|.*";
        assert_eq!(origins(&all), expected);
    }

    #[test]
    fn two_tries_fit_into_a_timeout() {
        assert_eq!(of_one_try("0.25s").ok().as_deref(), Some("0.100s"));
        assert_eq!(of_one_try("2s").ok().as_deref(), Some("0.800s"));
        assert!(of_one_try("50ms").is_err() && of_one_try("").is_err());
    }

    #[test]
    fn every_placeholder_has_a_value() {
        let values = BTreeMap::from([("A", "1".to_owned())]);
        let text = fill("# ${B}\nx: ${A}${A}\n", &values).expect("filled");
        assert_eq!(text, "x: 11\n");
        assert!(fill("x: ${B}\n", &values).is_err() && fill("x: ${A\n", &values).is_err());
    }
}
