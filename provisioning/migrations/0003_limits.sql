-- What a line may carry, in bits a second each way; none for as much as there is. A claim says it for the device that it
-- enrols, `device limit` changes it, each lease takes it from the device.

ALTER TABLE claim ADD COLUMN limit_down INTEGER CHECK (limit_down > 0);
ALTER TABLE claim ADD COLUMN limit_up INTEGER CHECK (limit_up > 0);
ALTER TABLE device ADD COLUMN limit_down INTEGER CHECK (limit_down > 0);
ALTER TABLE device ADD COLUMN limit_up INTEGER CHECK (limit_up > 0);
