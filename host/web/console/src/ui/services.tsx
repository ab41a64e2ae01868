// All services: what they do now, and what is wrong.

import { useState } from 'preact/hooks';
import type { Service } from '../api.js';
import { bytes, count, duration, rate } from '../format.js';
import { samples, services, total, type Sample } from '../state.js';
import { Chart } from './chart.js';
import { Button, Loading, Section, State, Table, type Column } from './parts.js';
import { Upload } from './upload.js';

const now = (service: Service) => samples.value.get(service.name)?.at(-1);

const COLUMNS: Column<Service>[] = [
  { name: 'Service', of: (service) => <a href={`#/services/${service.name}`}>{service.name}</a> },
  { name: 'State', of: (service) => <State of={service.state} /> },
  { name: 'Version', of: (service) => service.active ?? '–' },
  { name: 'Generation', number: true, of: (service) => service.generation ?? '–' },
  { name: 'Calls/s', number: true, of: (service) => rate(now(service)?.calls ?? 0) },
  { name: 'Errors', number: true, of: (service) => count(service.traffic.errors) },
  { name: 'Traps', number: true, of: (service) => <span class={service.traffic.traps > 0 ? 'bad' : undefined}>{count(service.traffic.traps)}</span> },
  { name: 'p50', number: true, of: (service) => duration(service.traffic.p50_us) },
  { name: 'p99', number: true, of: (service) => duration(service.traffic.p99_us) },
  { name: 'Running', number: true, of: (service) => count(service.calls_running) },
  { name: 'Instances', number: true, of: (service) => count(service.instances) },
  { name: 'Memory', number: true, of: (service) => bytes(service.memory_bytes) },
  { name: 'Breaker', of: (service) => <State of={service.breaker} /> },
];

export function Services() {
  const [uploading, setUploading] = useState(false);
  const known = services.value;
  if (!known) return <Loading what="Asking the host" />;
  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>Services</h1>
        <Button kind="primary" wants="deploy" onClick={() => setUploading(true)}>
          Upload a service
        </Button>
      </div>
      <Charts samples={total.value} />
      <Section title="On this host">
        <Table title="Services" columns={COLUMNS} items={known} keyOf={(service) => service.name} none="No services yet: upload one." />
        <p class="hint">Errors, traps and percentiles are those of the live generation since it became live; memory is that of its idle instances.</p>
      </Section>
      {uploading && <Upload onClose={() => setUploading(false)} />}
    </>
  );
}

/** What the last ten minutes were like. */
export function Charts({ samples }: { samples: Sample[] }) {
  const at = samples.map((sample) => sample.at);
  const marks = samples.flatMap(({ generation }, index) => (index > 0 && generation !== samples[index - 1]!.generation ? [{ index, text: `generation ${generation}` }] : []));
  const of = (what: 'calls' | 'errors' | 'traps' | 'latency' | 'memory') => samples.map((sample) => sample[what]);
  return (
    <div class="charts">
      <Chart title="Calls per second" at={at} marks={marks} show={rate} series={[{ name: 'Calls', colour: 'accent', values: of('calls') }]} />
      <Chart title="Mean latency" at={at} marks={marks} show={(ms) => (ms === 0 ? '0' : duration(ms * 1_000))} series={[{ name: 'Latency', colour: 'accent', values: of('latency') }]} />
      <Chart
        title="Failed a second"
        at={at}
        marks={marks}
        show={rate}
        series={[
          { name: 'Errors', colour: 'warn', values: of('errors') },
          { name: 'Traps', colour: 'danger', values: of('traps') },
        ]}
      />
      <Chart title="Memory" at={at} marks={marks} show={bytes} series={[{ name: 'Memory', colour: 'accent', values: of('memory') }]} />
    </div>
  );
}
