-- Sends the requests of a file at random: each line is the path of a GET and, where there is one, a token. The first argument
-- is the file's path.
local requests = {}

function init(args)
  local headers = { ["Accept"] = "application/vnd.oci.image.manifest.v1+json" }
  for line in io.lines(args[1]) do
    local path, token = line:match("^(%S+) ?(%S*)$")
    headers["Authorization"] = token ~= "" and "Bearer " .. token or nil
    requests[#requests + 1] = wrk.format("GET", path, headers)
  end
  math.randomseed(4711)
end

function request()
  return requests[math.random(#requests)]
end
