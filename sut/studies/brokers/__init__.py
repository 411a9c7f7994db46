"""What lies between two models: fused, or through shared memory, Redis or Kafka, by fan-out: ``sut study brokers``.

``forms.py`` says what is compared, ``rounds.py`` measures one round of one cell with ``sut.studies.driving``,
``study.py`` goes round all of them, ``crossing.py`` finds the fan-out from which a channel pays, ``paper.py`` has the
claims, ``report.py`` tells what came of it, ``page.py`` shows it.
"""
