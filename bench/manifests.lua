-- GETs the tag v1 of bench/app-0 to bench/app-(N-1) at random; N is the first argument. The second, where there is one,
-- is a file with the token of each of them in a line of its own.
local count
local tokens = {}

function init(args)
  count = tonumber(args[1])
  if args[2] then
    for token in io.lines(args[2]) do tokens[#tokens + 1] = "Bearer " .. token end
  end
  math.randomseed(4711)
  wrk.headers["Accept"] = "application/vnd.oci.image.manifest.v1+json"
end

function request()
  local index = math.random(0, count - 1)
  wrk.headers["Authorization"] = tokens[index + 1]
  return wrk.format("GET", "/v2/bench/app-" .. index .. "/manifests/v1")
end
