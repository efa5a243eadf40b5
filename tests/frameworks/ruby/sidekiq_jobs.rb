# Sidekiq in its ordinary use, and through two crashes of the store: `ruby sidekiq_jobs.rb PORT`.
require "tempfile"

ENV["LEDGER"] ||= Tempfile.create("ledger").path
require_relative "app"
require "sidekiq/api"

$stdout.sync = true

def ask(what)
  puts what
  $stdin.gets or raise "#{what}: answered"
end

# Waits until the block gives something true, and gives that. A store that is away is no failure.
def wait_until(what)
  limit = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 60
  failure = nil
  while Process.clock_gettime(Process::CLOCK_MONOTONIC) < limit
    begin
      found = yield
      return found if found
    rescue Redis::BaseError => error
      failure = error
    end
    sleep 0.02
  end
  raise "in time: #{what}; #{failure}"
end

def check(holds, what)
  holds or raise what
end

# An operator does not wait for the next try.
def hurry
  Sidekiq::RetrySet.new.each(&:add_to_queue)
  nil
end

def ordinary
  40.times { |at| Record.perform_async("plain-#{at}") }
  Record.perform_bulk(Array.new(20) { |at| ["bulk-#{at}"] })
  Record.set(queue: "urgent").perform_async("urgent")
  Record.perform_in(1, "soon")
  far = Record.perform_in(3600, "far")
  Flaky.perform_async("good", 1)
  Flaky.perform_async("bad", 9)
  wait_until("all of it") { hurry || Ledger.counts("end").size == 63 }
  wait_until("the last try") { hurry || Ledger.counts("exhausted")["bad"] == 1 }
  check(Ledger.counts("begin").values_at("good", "bad") == [2, 3], Ledger.counts("begin").inspect)
  check(Ledger.counts("begin").values.sum == 61 + 1 + 2 + 3, "each job is done once")
  wait_until("the dead") { Sidekiq::DeadSet.new.map { |job| job.args.first } == ["bad"] }
  check(Sidekiq::ScheduledSet.new.find_job(far).delete, "what is scheduled can be taken back")
  check(Sidekiq::ScheduledSet.new.size.zero? && Sidekiq::RetrySet.new.size.zero?, "nothing waits")
  wait_until("the process is known") { Sidekiq::ProcessSet.new.size == 1 }
  wait_until("the figures") { Sidekiq::Stats.new.failed == 4 && Sidekiq::Stats.new.processed >= 65 }
  Sidekiq::DeadSet.new.clear
end

def crashes
  sent = []
  resent = []
  # Without a reply it fails. The store may have it already, so nothing is sent again but what it has not.
  send_job = lambda do |name, delay = nil|
    tries = 0
    wait_until("#{name} is sent") do
      known = tries.positive? && (Ledger.counts("begin")[name].positive? ||
        (Sidekiq::Queue.new.to_a + Sidekiq::ScheduledSet.new.to_a).any? { |job| job.args == [name] })
      resent << name if tries.positive? && !known
      tries += 1
      known || (delay ? Record.perform_in(delay, name) : Record.perform_async(name))
    end
    sent << name
  end
  frozen = []
  10.times { |at| send_job.call("later-#{at}", 3) }
  3.times do |burst|
    40.times { |at| send_job.call("order-#{burst}-#{at}") }
    wait_until("some are done") { (sent & Ledger.counts("end").keys).size >= 40 * burst + 15 }
    next if burst == 2
    ask("kill")
    ended = Ledger.counts("end")
    frozen << Ledger.counts("begin").select { |name, _| ended.key?(name) }
    ask("start")
  end
  wait_until("the queues are empty") { Sidekiq::Queue.new.size.zero? && Sidekiq::ScheduledSet.new.size.zero? }
  # A job leaves its queue before it is done: what was on its way to one of four threads, or from the schedule to
  # the queue, may be gone.
  lost_at_most = 2 * 5
  wait_until("all is done") { (sent - Ledger.counts("end").keys).size <= lost_at_most }
  wait_until("nothing is under way") { sent.all? { |name| Ledger.counts("begin")[name] == Ledger.counts("end")[name] } }
  begun = Ledger.counts("begin")
  twice = sent.select { |name| begun[name] > 1 } - resent
  check(twice.empty?, "#{twice} were done twice")
  frozen.each { |counts| counts.each { |name, times| check(begun[name] == times, "#{name} was done and done again") } }
end

here = File.expand_path(__dir__)
words = ["sidekiq", "-r", "#{here}/app.rb", "-c", "4", "-q", "urgent", "-q", "default"]
worker = spawn({ "STORE_PORT" => PORT.to_s }, *words, in: File::NULL, out: File::NULL, err: File::NULL)
begin
  ordinary
  crashes
  puts "fine"
ensure
  Process.kill("KILL", worker)
end
