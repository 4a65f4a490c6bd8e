//! End-to-end tests: each starts the real `wasgi` and talks to it over sockets.
//!
//! One file per theme. The apps are in tests/apps; `server` starts one, `client` speaks HTTP/1.1 as it is on the wire.

mod client;
mod gateway_client;
mod http2_client;
mod server;

mod admin;
mod bill;
mod cgi;
mod check_isolation;
mod compress;
mod config;
mod copies;
mod daemon;
mod density;
mod dev;
mod elsewhere;
mod examples;
mod fastcgi;
mod flask;
mod fronts;
mod gateways;
mod groups;
mod hostile;
mod http;
mod http2;
mod image_cache;
mod isolation;
mod lifecycle;
mod limits;
mod logs;
mod nodes;
mod operations;
mod own_logs;
mod pep3333;
mod privileges;
mod proxied;
mod proxy_protocol;
mod quotas;
mod recursion;
mod requests;
mod resilience;
mod sandbox;
mod sent_files;
mod sqlite;
mod start_up;
mod static_files;
mod systemd;
mod tenants;
mod tls;
mod top;
mod traces;
mod upgrade;
