-- GETs the tag v1 of bench/app-0 to bench/app-(N-1) at random; N is the first argument.
local count

function init(args)
  count = tonumber(args[1])
  math.randomseed(4711)
  wrk.headers["Accept"] = "application/vnd.oci.image.manifest.v1+json"
end

function request()
  return wrk.format("GET", "/v2/bench/app-" .. math.random(0, count - 1) .. "/manifests/v1")
end
