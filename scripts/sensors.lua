-- The sensors of this installation. Edit freely; `neap check` says what is wrong, with the line.
-- A sensor that is not listed here is accepted all the same, with default settings.
--
--   unit, label           for people
--   minimum, maximum      what makes sense; readings outside are kept and flagged
--   max_rate              fastest believable change, in units per second
--   interval              time between readings, such as 10 or "10 min"
--   window                how many readings the model looks back on
--   mean, deviation, period, kind     what `neap seed` makes up: "cycle" (realistic) or "white" (pure noise)
--   keep, clock, flatline, silence, scale, offset, false_alarms       see README, "Describing a sensor"

-- All sensors together bring at most so many false alarms a week; each gets its share. Fewer also means that less is found.
fleet {false_alarms = 7}

sensor "temperature" {
    unit = "°F", label = "room temperature",
    minimum = 60, maximum = 70,
    mean = 65, deviation = 1.5, period = "1 day",
    interval = "10 min",
}

sensor "pressure" {
    unit = "psi", label = "line pressure",
    minimum = 30, maximum = 35,
    mean = 32.5, deviation = 0.8, period = "1 day",
    interval = "10 min",
}

sensor "humidity" {
    unit = "%", label = "relative humidity",
    minimum = 30, maximum = 50,
    mean = 40, deviation = 3, period = "1 day",
    interval = "10 min",
}
