-- What wrk sends, and the figures it hands back: one line of JSON, exact where wrk's own report is rounded.
-- Arguments: the size of a body to POST, in bytes; none for GET.

function init(args)
  if args[1] then
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/octet-stream"
    wrk.body = string.rep("0123456789abcdef", tonumber(args[1]) / 16)
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "max": %d, ' ..
      '"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
