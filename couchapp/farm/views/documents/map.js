// The documents of each batch job, those that have ended too. Key [job's name, task, attempt].
function map(doc) {
  var jobs, i, job;
  if (doc.type !== "@type@") return;
  jobs = Array.isArray(doc.batchjob) ? doc.batchjob : [];
  for (i = 0; i < jobs.length; i++) {
    job = jobs[i];
    if (!job || typeof job.name !== "string") continue;
    emit([job.name, job.task, job.attempt], {
      step: job.step, farm: job.cluster, scheduler: job.scheduler, number: job.number, submitted: job.submitted
    });
  }
}
