# The jobs of sidekiq_jobs.rb, and how Sidekiq is set up. The workers load it, too.
require "sidekiq"

# This Sidekiq warns of what Redis' client of the next version does.
Redis.silence_deprecations = true

PORT = Integer(ENV["STORE_PORT"] || ARGV.fetch(0))
STORE = { url: "redis://127.0.0.1:#{PORT}/0", reconnect_attempts: 0 }
Sidekiq.configure_client { |config| config.redis = STORE }
Sidekiq.configure_server do |config|
  config.redis = STORE
  # What is scheduled is looked for every second.
  Sidekiq.options[:poll_interval_average] = 1
end
Sidekiq.logger.level = Logger::FATAL

# What was done, in the order it was: workers append to one file.
module Ledger
  PATH = ENV.fetch("LEDGER")

  def self.note(kind, name)
    File.open(PATH, "a") { |file| file.syswrite("#{kind} #{name}\n") }
  end

  def self.counts(kind)
    lines = File.readlines(PATH, chomp: true).map(&:split)
    lines.select { |said, _| said == kind }.map(&:last).tally.tap { |found| found.default = 0 }
  end
end

class Record
  include Sidekiq::Job

  def perform(name)
    Ledger.note("begin", name)
    sleep 0.01
    Ledger.note("end", name)
  end
end

class Flaky
  include Sidekiq::Job
  sidekiq_options queue: "urgent", retry: 2
  sidekiq_retries_exhausted { |job, _| Ledger.note("exhausted", job["args"].first) }

  def perform(name, failures)
    Ledger.note("begin", name)
    raise "not yet" if Ledger.counts("begin")[name] <= failures
    Ledger.note("end", name)
  end
end
